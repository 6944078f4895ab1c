"""One door to every data set: `load(name, ...)`."""

import dataclasses

from keras_preact.data import embedded, folder, splitting, table, tfds_source, validation
from keras_preact.data.augmentation import EVAL_RESIZE_RATIO
from keras_preact.data.dataset import Dataset, DatasetInfo
from keras_preact.data.sampling import SAMPLINGS
from keras_preact.data.sources import InMemory, Loaded
from keras_preact.layers import Preprocessing
from keras_preact.support.choices import one_of

# Data sets of files that a user has, which may bring no split.
_OF_FILES = {"folder": folder, "csv": table}

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
    crop_ratio: float | None = None,
    validation_images: int | None = None,
) -> Dataset:
    """Loads a data set.

    | name | images | splits |
    |---|---|---|
    | digits | scikit-learn's 1,797 handwritten digits, 8x8x1 | every fifth for eval |
    | synthetic | noise around ten patterns | 1,024 and 256 |
    | folder | data_dir/train/CLASS/IMAGE and data_dir/val/CLASS/IMAGE, or CLASS/IMAGE | train \
    and val, perhaps test, or as `split` divides |
    | csv | those that the CSV file data_dir names, with their labels | its column split, or as \
    `split` divides |
    | any other | an image classification set of tensorflow-datasets | train, and the first \
    of validation, test and every tenth of train; test beside validation, where it has labels |

    Args:
        name: see above.
        data_dir: the folder of images, the CSV file, or the folder of tensorflow-datasets.
        image_size: height and width in pixels, where images have various sizes or
            none: folder, csv and sets such as imagenet2012 (by default the height of `like`, else
            224), synthetic (32).
        skip_bad_images: leave out files of a folder or a CSV file that cannot be decoded, or must
            not be; see `folder.load`.
        like: gives the mean and standard deviation to normalize with, and how evaluation
            resizes images of various sizes; by default the training images' own, and the
            papers' resizing.
        split: percentages of images for training, validation and test, as (80, 10, 10) or
            (80, 20), where a folder or a CSV file leaves the split open; default: (80, 10, 10).
        sampling: how often training takes an image of each class: "natural", each image once an
            epoch; "balanced", all classes equally often; "sqrt", in proportion to the square
            root of their numbers of images. See `ClassSampler`.
        crop_ratio: part of each side of a resized image that is cropped, where images have
            various sizes; default: that of `like`, else 0.875, as the papers' 224 of 256.
        validation_images: number of training images to evaluate on, in place of the set's own
            images for evaluation, which become the test split; see `validation.hold_out`. Not for
            folder and csv.

    Raises:
        ValueError: if the name or the sampling is unknown, data_dir is missing or not as expected,
            image_size is given for images of one size, split for a set that brings its own, or
            validation_images for one that does not, or has a validation split already.
    """
    one_of("sampling", sampling, SAMPLINGS)
    if split is not None and name not in _OF_FILES:
        raise ValueError(
            f"split is for {' and '.join(_OF_FILES)} alone. "
            f"Received: split={splitting.shown(split)}, name={name!r}"
        )
    if validation_images is not None and name in _OF_FILES:
        raise ValueError(
            f"validation_images is for data sets that bring their splits; {name} has split. "
            f"Received: validation_images={validation_images}"
        )
    check(name, data_dir)
    default_size = like.image_shape[0] if like else 224
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be above 0. Received: image_size={image_size}")
    if name == "digits":
        loaded = Loaded(*embedded.digits())
    elif name == "synthetic":
        loaded = Loaded(*embedded.synthetic(image_size or 32))
    elif name in _OF_FILES:
        source = _OF_FILES[name]
        loaded = source.load(data_dir, image_size or default_size, skip_bad_images, split)
    else:
        loaded = tfds_source.load(name, data_dir, image_size or default_size)
    if validation_images is not None:
        loaded = validation.hold_out(loaded, validation_images, name)
    dataset = _dataset(name, loaded, image_size, like, crop_ratio)
    return dataclasses.replace(dataset, sampling=sampling)


def check(name: str, data_dir: str | None) -> None:
    """Raises ValueError for an unknown name or a missing data_dir, without reading data."""
    if name == "folder":
        if not data_dir:
            raise ValueError(
                "dataset='folder' needs data_dir: a folder with train/CLASS/IMAGE and "
                "val/CLASS/IMAGE, or CLASS/IMAGE. Received: data_dir=None"
            )
        folder.check(data_dir)
    elif name == "csv":
        if not data_dir:
            raise ValueError(
                "dataset='csv' needs data_dir: a CSV file with the columns path and label. "
                "Received: data_dir=None"
            )
        table.check(data_dir)
    elif name not in tfds_source.OWN_NAMES:
        tfds_source.check(name, data_dir)


def median_pixels(name: str, data_dir: str | None) -> float | None:
    """Returns the median of height times width over some training images of a folder or a CSV.

    None for other data sets, without data_dir, and where no file is an image.

    Raises:
        ValueError: if a folder or the file is missing or not as expected.
    """
    return _OF_FILES[name].median_pixels(data_dir) if name in _OF_FILES and data_dir else None


def _dataset(name, loaded, image_size, like, crop_ratio):
    train, evaluation, test = loaded.train, loaded.evaluation, loaded.test
    if isinstance(train, InMemory):
        if crop_ratio is not None:
            raise ValueError(
                f"crop_ratio must be left out for {name}, whose images have one size. "
                f"Received: crop_ratio={crop_ratio}"
            )
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
        if crop_ratio is not None:
            resizing["resize_ratio"] = 1 / crop_ratio
    for split, source in (("training", train), ("evaluation", evaluation)):
        if not len(source):
            raise ValueError(
                f"{name} must have images to learn from and others to evaluate on; "
                f"there are none for {split}."
            )
    if like:
        like = like.with_channels(shape[-1])
    # Of the usual crop, which earlier starts have remembered.
    mean, std = (like.mean, like.std) if like else train.statistics()
    if not isinstance(train, InMemory):
        train, evaluation, test = (
            source and dataclasses.replace(source, **resizing)
            for source in (train, evaluation, test)
        )
    info = DatasetInfo(
        name=name,
        class_names=tuple(loaded.class_names),
        image_shape=tuple(shape),
        train_count=len(train),
        eval_count=len(evaluation),
        mean=tuple(mean),
        std=tuple(std),
        multi_label=train.labels is not None and train.labels.ndim == 2,
        test_count=len(test) if test else 0,
        **resizing,
    )
    return Dataset(
        info,
        train,
        evaluation,
        default,
        test,
        findings=loaded.findings,
        division=loaded.division,
    )
