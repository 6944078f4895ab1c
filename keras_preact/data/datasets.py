"""One door to every data set: `load(name, ...)`."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_preact.data import embedded, folder, tfds_source
from keras_preact.data.augmentation import AUGMENTATIONS, EVAL_MARGIN
from keras_preact.data.order import DRAWS, DataOrder, Share
from keras_preact.data.sources import Encoded, InMemory
from keras_preact.layers.lookup import one_of

# Written digits and letters are no longer themselves in a mirror.
_DEFAULT_AUGMENTATION = {
    "synthetic": "none",
    **dict.fromkeys(("digits", "mnist", "emnist", "kmnist", "svhn_cropped"), "pad_crop"),
}


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What a network, its training and its export must know of a data set.

    Args:
        name: as given to `load`.
        class_names: by label.
        image_shape: (height, width, channels).
        train_count: training images.
        eval_count: evaluation images.
        mean: of each channel over the training images, in 0 to 255.
        std: standard deviation of each channel, likewise.
        margin: how many times the image_shape an image file must cover before its
            centre is cropped; see `augmentation.fit`.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_count: int
    eval_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    margin: float

    @property
    def classes(self) -> int:
        return len(self.class_names)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The two splits of a data set. `load` makes it."""

    info: DatasetInfo
    train_source: InMemory | Encoded
    eval_source: InMemory | Encoded
    default_augmentation: str

    def train(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        start_step: int = 0,
        augmentation: str | None = None,
        share: Share = Share(),  # noqa: B008 - frozen
    ) -> tf.data.Dataset:
        """The endless stream of training batches, from start_step on.

        Batches, their order and their augmentation depend on (seed, step) alone; see
        `DataOrder`.

        Args:
            batch_size: images in a batch.
            seed: a whole number, at least 0.
            start_step: the step that the first batch belongs to.
            augmentation: one of `AUGMENTATIONS`; by default what suits the data set.
            share: of several replicas, those whose pieces of each batch to return, one
                after the other.

        Returns:
            Batches (images, labels): uint8 (batch, height, width, channels), int32 (batch,).

        Raises:
            ValueError: if the augmentation is unknown or does not fit the images, or a
                batch cannot be cut into equal pieces.
        """
        augmentation = self.check_augmentation(augmentation)
        order = DataOrder(len(self.train_source), batch_size, seed)
        size = share.piece_size(batch_size)

        def pieces():
            for batch in order.batches(start_step):
                yield from zip(*map(share.pieces, batch), strict=True)

        indices = tf.data.Dataset.from_generator(
            pieces,
            output_signature=(
                tf.TensorSpec([size], tf.int64),
                tf.TensorSpec([size, DRAWS], tf.int32),
            ),
        )
        batches = self.train_source.train_batches(indices, augmentation, self.info.mean)
        endless = tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
        return batches.apply(endless).prefetch(tf.data.AUTOTUNE)

    def eval(
        self,
        batch_size: int,
        share: Share = Share(),  # noqa: B008 - frozen
    ) -> tf.data.Dataset:
        """Every evaluation image once, in order, in batches of one size.

        The last batch is filled up with copies of the first image, of weight 0.

        Args:
            batch_size: images in a batch.
            share: as for `train`.

        Returns:
            Batches (images, labels, weights): uint8 (batch, height, width, channels),
            int32 (batch,), float32 (batch,) of ones, and zeros for the filling.

        Raises:
            ValueError: if a batch cannot be cut into equal pieces.
        """
        count, size = len(self.eval_source), share.piece_size(batch_size)
        padded = -(-count // batch_size) * batch_size
        positions = np.arange(padded).reshape(-1, batch_size)
        own = np.concatenate([np.stack(share.pieces(batch)).ravel() for batch in positions])
        indices, weights = np.where(own < count, own, 0), (own < count).astype(np.float32)
        images = self.eval_source.eval_images(tf.data.Dataset.from_tensor_slices(indices))
        with_weights = tf.data.Dataset.zip((images, tf.data.Dataset.from_tensor_slices(weights)))
        return (
            with_weights.map(lambda pair, weight: (*pair, weight))
            .batch(size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def check_augmentation(self, augmentation: str | None) -> str:
        """The augmentation to use; raises ValueError where it does not fit the images."""
        if augmentation is None:
            return self.default_augmentation
        one_of("augmentation", augmentation, AUGMENTATIONS)
        of_any_size = isinstance(self.train_source, Encoded)
        fitting = ("none", "random_resized_crop") if of_any_size else AUGMENTATIONS[:-1]
        if augmentation not in fitting:
            raise ValueError(
                f"augmentation of {self.info.name}, whose images are "
                f"{'of any size' if of_any_size else 'of one size'}, must be one of "
                f"{', '.join(fitting)}. Received: augmentation={augmentation!r}"
            )
        return augmentation


def load(
    name: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    skip_bad_images: bool = False,
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
            none: folder and sets such as imagenet2012 (224 by default), synthetic (32).
        skip_bad_images: leave out files of a folder that cannot be decoded.

    Raises:
        ValueError: if the name is unknown, data_dir is missing or not as expected,
            or image_size is given for images of one size.
    """
    check(name, data_dir)
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be above 0. Received: image_size={image_size}")
    if name == "digits":
        train, evaluation, class_names = embedded.digits()
    elif name == "synthetic":
        train, evaluation, class_names = embedded.synthetic(image_size or 32)
    elif name == "folder":
        train, evaluation, class_names = folder.load(data_dir, image_size or 224, skip_bad_images)
    else:
        train, evaluation, class_names = tfds_source.load(name, data_dir, image_size or 224)
    return _dataset(name, train, evaluation, class_names, image_size)


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


def _dataset(name, train, evaluation, class_names, image_size):
    if isinstance(train, InMemory):
        shape = train.images.shape[1:]
        if image_size is not None and shape[:2] != (image_size, image_size):
            raise ValueError(
                f"image_size must be left out for {name}, whose images are "
                f"{shape[0]}x{shape[1]}. Received: image_size={image_size}"
            )
        default = _DEFAULT_AUGMENTATION.get(name.partition("/")[0], "pad_crop_flip")
        margin = 1.0
    else:
        shape, default = (train.size, train.size, 3), "random_resized_crop"
        margin = EVAL_MARGIN
    for split, source in (("training", train), ("evaluation", evaluation)):
        if not len(source):
            raise ValueError(
                f"{name} must have images to learn from and others to evaluate on; "
                f"there are none for {split}."
            )
    mean, std = train.statistics()
    info = DatasetInfo(
        name=name,
        class_names=tuple(class_names),
        image_shape=tuple(shape),
        train_count=len(train),
        eval_count=len(evaluation),
        mean=tuple(mean),
        std=tuple(std),
        margin=margin,
    )
    return Dataset(info, train, evaluation, default)
