"""One door to every data set: `load(name, ...)`."""

import dataclasses

from keras_preact.data import embedded, folder, tfds_source
from keras_preact.data.augmentation import EVAL_RESIZE_RATIO
from keras_preact.data.dataset import Dataset, DatasetInfo
from keras_preact.data.sources import InMemory
from keras_preact.layers import Preprocessing

# Written digits and letters are no longer themselves in a mirror.
_DEFAULT_AUGMENTATION = {
    "synthetic": "none",
    **dict.fromkeys(("digits", "mnist", "emnist", "kmnist", "svhn_cropped"), "pad_crop"),
}


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    skip_bad_images: bool = False,
    like: Preprocessing | None = None,
    split: tuple[int, ...] | None = None,
    sampling: str = "natural",
) -> Dataset:
    """Loads a data set.

    | name | images | splits |
    |---|---|---|
    | digits | scikit-learn's 1,797 handwritten digits, 8x8x1 | every fifth for eval |
    | synthetic | noise around ten patterns | 1,024 and 256 |
    | folder | data_dir/train/CLASS/IMAGE and data_dir/val/CLASS/IMAGE | train, val |
    | any other | an image classification set of tensorflow-datasets | train, and the first \
    of validation, test and every tenth of train |

    Args:
        name: see above.
        data_dir: the folder of images, or that of tensorflow-datasets.
        image_size: height and width in pixels, where images have various sizes or
            none: folder and sets such as imagenet2012 (by default the height of `like`, else
            224), synthetic (32).
        skip_bad_images: leave out files of a folder that cannot be decoded, or must not be;
            see `folder.load`.
        like: gives the mean and standard deviation to normalize with, and how evaluation
            resizes images of various sizes; by default the training images' own, and the
            papers' resizing.
        split: percentages of images for training, validation and test, as (80, 10, 10) or
            (80, 20), where a folder or a CSV file leaves the split open; default: (80, 10, 10).
        sampling: how often training takes an image of each class: "natural", each image once an
            epoch; "balanced", all classes equally often; "sqrt", in proportion to the square
            root of their numbers of images. See `ClassSampler`.

    Raises:
        ValueError: if the name is unknown, data_dir is missing or not as expected,
            or image_size is given for images of one size.
    """
    check(name, data_dir)
    default_size = like.image_shape[0] if like else 224
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be above 0. Received: image_size={image_size}")
    if name == "digits":
        train, evaluation, class_names = embedded.digits()
    elif name == "synthetic":
        train, evaluation, class_names = embedded.synthetic(image_size or 32)
    elif name == "folder":
        train, evaluation, class_names = folder.load(
            data_dir, image_size or default_size, skip_bad_images
        )
    else:
        train, evaluation, class_names = tfds_source.load(
            name, data_dir, image_size or default_size
        )
    data = _dataset(name, train, evaluation, class_names, image_size, like)
    return dataclasses.replace(data, sampling=sampling)


def check(name: str, data_dir: str | None) -> None:
    """Raises ValueError for an unknown name or a missing data_dir, without reading data."""
    if name == "folder":
        if not data_dir:
            raise ValueError(
                "dataset='folder' needs data_dir: a folder with train/CLASS/IMAGE and "
                "val/CLASS/IMAGE. Received: data_dir=None"
            )
        folder.check(data_dir)
    elif name not in tfds_source.OWN_NAMES:
        tfds_source.check(name, data_dir)


def _dataset(name, train, evaluation, class_names, image_size, like):
    if isinstance(train, InMemory):
        shape = train.images.shape[1:]
        if image_size is not None and shape[:2] != (image_size, image_size):
            raise ValueError(
                f"image_size must be left out for {name}, whose images are "
                f"{shape[0]}x{shape[1]}. Received: image_size={image_size}"
            )
        default = _DEFAULT_AUGMENTATION.get(name.partition("/")[0], "pad_crop_flip")
        resizing = {"resize_ratio": 1.0}
    else:
        shape, default = (train.size, train.size, 3), "random_resized_crop"
        resizing = {"resize_ratio": EVAL_RESIZE_RATIO}
        if like:
            resizing = {"resize_ratio": like.resize_ratio, "interpolation": like.interpolation}
            train, evaluation = (dataclasses.replace(s, **resizing) for s in (train, evaluation))
    for split, source in (("training", train), ("evaluation", evaluation)):
        if not len(source):
            raise ValueError(
                f"{name} must have images to learn from and others to evaluate on; "
                f"there are none for {split}."
            )
    if like:
        like = like.with_channels(shape[-1])
    mean, std = (like.mean, like.std) if like else train.statistics()
    info = DatasetInfo(
        name=name,
        class_names=tuple(class_names),
        image_shape=tuple(shape),
        train_count=len(train),
        eval_count=len(evaluation),
        mean=tuple(mean),
        std=tuple(std),
        **resizing,
    )
    return Dataset(info, train, evaluation, default)
