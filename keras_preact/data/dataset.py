"""The two splits of a data set, as streams of batches."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data.augmentation_text import BASES, OF_ANY_SIZE, parse
from keras_preact.data.order import DRAWS, DataOrder, Shard
from keras_preact.data.sampling import SAMPLINGS, ClassSampler, groups_of
from keras_preact.data.sources import Encoded, Findings, InMemory
from keras_preact.data.splitting import Division
from keras_preact.layers import Preprocessing
from keras_preact.support.choices import one_of
from keras_preact.support.machine import cores


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """The facts of a data set that a network, its training and its export need.

    Args:
        name: as given to `load`.
        class_names: by label.
        image_shape: (height, width, channels).
        train_count: training images.
        eval_count: evaluation images.
        mean: of each channel over the training images, in 0 to 255.
        std: standard deviation of each channel, likewise.
        resize_ratio: how many times the image_shape an image file is resized to cover,
            before its centre is cropped; see `augmentation.fit`. In files it is "margin".
        interpolation: of that resizing.
        multi_label: whether an image may be of several classes, or none.
        test_count: images of the test split; 0 without one.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    train_count: int
    eval_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float = dataclasses.field(metadata={"json": "margin"})
    interpolation: str = "bilinear"
    multi_label: bool = False
    test_count: int = 0

    def to_json(self) -> dict:
        """The fields as files hold them; `records.typed` reads them back."""
        fields = dataclasses.fields(self)
        return {
            field.metadata.get("json", field.name): getattr(self, field.name) for field in fields
        }

    @property
    def classes(self) -> int:
        return len(self.class_names)

    @property
    def preprocessing(self) -> Preprocessing:
        """The part of these facts that travels with the weights of a network."""
        fields = {field.name for field in dataclasses.fields(Preprocessing)}
        shared = fields & {field.name for field in dataclasses.fields(self)}
        return Preprocessing(**{name: getattr(self, name) for name in shared})

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Images in 0 to 255, of any dtype, as float32 ones of mean 0 and deviation 1."""
        return self.preprocessing.normalize(images)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The splits of a data set. `load` makes it.

    Args:
        info: its facts.
        train_source: training images.
        eval_source: evaluation images.
        default_augmentation: of training images.
        test_source: images that neither training nor evaluation sees; see `for_test`.
        sampling: how often training takes an image of a class; see `ClassSampler`.
        findings: about its files.
        division: the split of each image, where percentages divide the set; None for a set that
            brings its splits.
    """

    info: DatasetInfo
    train_source: InMemory | Encoded
    eval_source: InMemory | Encoded
    default_augmentation: str
    test_source: InMemory | Encoded | None = None
    sampling: str = "natural"
    findings: Findings = dataclasses.field(default_factory=Findings)
    division: Division | None = None

    def __post_init__(self):
        one_of("sampling", self.sampling, SAMPLINGS)

    def for_test(self) -> "Dataset | None":
        """Returns the data set with the test split in place of evaluation; None without one."""
        if self.test_source is None:
            return None
        info = dataclasses.replace(self.info, eval_count=len(self.test_source))
        return dataclasses.replace(self, info=info, eval_source=self.test_source)

    def train(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        start_step: int = 0,
        augmentation: str | None = None,
        shard: Shard = Shard(),  # noqa: B008 - frozen
        reshuffles: Sequence[int] = (),
    ) -> tf.data.Dataset:
        """Returns the endless stream of training batches, from start_step on.

        Batches, their order and their augmentation depend on (seed, reshuffles, step)
        alone; see `DataOrder`. An image that cannot be read ends the stream with a
        `tf.errors.OpError`; `unreadable` says which one it was.

        Args:
            batch_size: images in a batch.
            seed: a whole number, at least 0.
            start_step: the step that the first batch belongs to.
            augmentation: see `check_augmentation`; by default what suits the data set.
            shard: the replicas whose pieces of each batch to return, one after the other.
            reshuffles: steps at which the order is drawn anew; see `DataOrder`.

        Returns:
            Batches (images, labels): uint8 (batch, height, width, channels), int32 (batch,), of
            several labels float32 (batch, classes) of zeros and ones. Where
            `train_source.weights` is not None, batches (images, labels, weights): float32
            (batch,), of mean 1 over all images.

        Raises:
            ValueError: if the augmentation is unknown or does not fit the images, a
                batch cannot be cut into equal pieces, or reshuffles do not ascend.
        """
        augmentation = self.check_augmentation(augmentation)
        order = self.train_order(batch_size, seed, reshuffles)
        indices = order_pieces(order, start_step, shard)
        batches = self.train_source.train_batches(indices, augmentation, self.info.mean)
        endless = tf.data.experimental.assert_cardinality(tf.data.experimental.INFINITE_CARDINALITY)
        # Threads of its own: decoding then never waits behind the operations of a step.
        options = tf.data.Options()
        options.threading.private_threadpool_size = cores()
        return batches.apply(endless).prefetch(tf.data.AUTOTUNE).with_options(options)

    def eval(
        self,
        batch_size: int,
        shard: Shard = Shard(),  # noqa: B008 - frozen
        indices: np.ndarray | None = None,
    ) -> tf.data.Dataset:
        """Returns every evaluation image once, in order, in batches of one size.

        The last batch is filled up with copies of the first image, of weight 0.

        Args:
            batch_size: images in a batch.
            shard: as for `train`.
            indices: of the images wanted, int64 (count,); by default all.

        Returns:
            Batches (images, labels, weights): uint8 (batch, height, width, channels),
            int32 (batch,), or float32 (batch, classes) as in `train`, float32 (batch,) of ones,
            and zeros for the filling.

        Raises:
            ValueError: if a batch cannot be cut into equal pieces.
        """
        if indices is None:
            indices = np.arange(len(self.eval_source))
        numbers, weights = eval_pieces(len(indices), batch_size, shard)
        size, weights = numbers.shape[1], weights.ravel()
        filled = indices[numbers.ravel()]
        images = self.eval_source.eval_images(tf.data.Dataset.from_tensor_slices(filled))
        with_weights = tf.data.Dataset.zip((images, tf.data.Dataset.from_tensor_slices(weights)))
        return (
            with_weights.map(lambda pair, weight: (*pair, weight))
            .batch(size, drop_remainder=True)
            .prefetch(tf.data.AUTOTUNE)
        )

    def train_indices(
        self, step: int, batch_size: int, *, seed: int = 0, reshuffles: Sequence[int] = ()
    ) -> np.ndarray:
        """The images of a step of `train`, over all replicas: indices, int64 (batch_size,)."""
        return self.train_order(batch_size, seed, reshuffles).batch(step)[0]

    def train_order(
        self, batch_size: int, seed: int = 0, reshuffles: Sequence[int] = ()
    ) -> DataOrder:
        """The order of the training images, and their random integers."""
        sampler = None
        if self.sampling != "natural":
            groups = groups_of(self.train_source.all_labels())
            sampler = ClassSampler(groups, self.sampling, seed)
        return DataOrder(len(self.train_source), batch_size, seed, reshuffles, sampler)

    def eval_name(self, index: int) -> str:
        """Names an evaluation image: by its path, if it is a file of its own."""
        return self.eval_source.where(index)

    def eval_file(self, index: int) -> bytes:
        """The file of an evaluation image; a PNG if it is in memory."""
        return self.eval_source.file(index)

    def digests(self) -> dict[str, str]:
        """Returns 12 letters for each split that tell its images from others, in any folder.

        Cheap: reads names, sizes and a few contents of files, the labels of images in memory.

        Raises:
            ValueError: if a file cannot be read.
        """
        return {split: source.digest() for split, source in self._sources().items()}

    def class_counts(self, split: str = "train") -> np.ndarray:
        """Returns the number of images of each class, int64 (classes,).

        An image of several labels counts for each of them. Where the source's `labels` are None,
        as in large sets of tensorflow-datasets, all records are read, once.

        Args:
            split: "train", "eval" or "test".

        Raises:
            ValueError: if there is no such split, or a label cannot be read.
        """
        labels = self.source(split).all_labels()
        if self.info.multi_label:
            return labels.sum(axis=0, dtype=np.float64).astype(np.int64)
        return np.bincount(labels, minlength=self.info.classes).astype(np.int64)

    def source(self, split: str) -> InMemory | Encoded:
        """Returns the images of a split: "train", "eval" or "test".

        Raises:
            ValueError: if there is no such split.
        """
        sources = self._sources()
        return sources[one_of("split", split, sources)]

    def _sources(self):
        sources = {"train": self.train_source, "eval": self.eval_source, "test": self.test_source}
        return {split: source for split, source in sources.items() if source is not None}

    def unreadable(self, split: str, indices: Iterable[int]) -> list[str]:
        """Reads images one by one and describes those that cannot be read or decoded.

        Args:
            split: "train", "eval" or "test".
            indices: which images, 0 to the split's count - 1; each is read once.

        Returns:
            One line for each bad image, with its file, and its record where files hold
            several: "photos/train/ant/3.jpg: no such file". No lines for images in memory.

        Raises:
            ValueError: if there is no such split.
        """
        return self.source(split).unreadable(indices)

    def check_augmentation(self, augmentation: str | None) -> str:
        """Returns the augmentation to use, with its base.

        Args:
            augmentation: as in `augmentation_text`; operations alone follow the data set's
                default. None: that default.

        Raises:
            ValueError: if it is not as `augmentation_text` says, or does not fit the images.
        """
        if augmentation is None:
            return self.default_augmentation
        read = parse(augmentation)
        read = dataclasses.replace(read, base=read.base or self.default_augmentation)
        of_any_size = isinstance(self.train_source, Encoded)
        fitting = [name for name in BASES if of_any_size or name not in OF_ANY_SIZE]
        if read.base not in fitting:
            raise ValueError(
                f"augmentation of {self.info.name}, whose images are "
                f"{'of any size' if of_any_size else 'of one size'}, must be one of "
                f"{', '.join(fitting)}. Received: augmentation={augmentation!r}"
            )
        return str(read)


def order_pieces(order: DataOrder, start_step: int, shard: Shard) -> tf.data.Dataset:
    """Returns the endless stream of (indices, draws) of a shard's replicas, one after the other.

    Raises:
        ValueError: if a batch cannot be cut into equal pieces.
    """
    size = shard.piece_size(order.batch_size)

    def pieces():
        for batch in order.batches(start_step):
            yield from zip(*map(shard.pieces, batch), strict=True)

    return tf.data.Dataset.from_generator(
        pieces,
        output_signature=(
            tf.TensorSpec([size], tf.int64),
            tf.TensorSpec([size, DRAWS], tf.int32),
        ),
    )


def eval_pieces(
    count: int,
    batch_size: int,
    shard: Shard = Shard(),  # noqa: B008 - frozen
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the numbers 0 to count - 1 into batches of one size, and those into pieces.

    The last batch is filled up with zeros, of weight 0.

    Returns:
        Numbers, int64 (pieces, images), and their weights, float32 of the same shape: the pieces
        of the shard's replicas, one after the other.

    Raises:
        ValueError: if a batch cannot be cut into equal pieces.
    """
    size = shard.piece_size(batch_size)
    padded = np.arange(-(-count // batch_size) * batch_size).reshape(-1, batch_size)
    own = [np.stack(shard.pieces(batch)) for batch in padded]
    numbers = np.concatenate(own) if own else np.zeros((0, size), np.int64)
    is_image = numbers < count
    return np.where(is_image, numbers, 0), is_image.astype(np.float32)
