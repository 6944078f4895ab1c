"""Sources of images: arrays in memory at one size, or encoded files of any size."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data import augmentation, augmentation_text, limits
from keras_preact.data.splitting import Division
from keras_preact.support import console

# Images whose pixels are summed at a time.
_PART_IMAGES = 64
# Images that operations change at a time: enough to share their overhead, few enough for caches.
_CHANGED_IMAGES = 16
# Labels that are read at a time.
_PART_LABELS = 1024


Moments = tuple[list[float], list[float]]


@dataclasses.dataclass(frozen=True)
class Memory:
    """Mean and standard deviation of each channel, as an earlier start has found them.

    Args:
        moments: these; None where they are not known.
        keep: remembers them for later starts.
        of_part: returns the memory of a part of the images, by its name.
    """

    moments: Moments | None = None
    keep: Callable[[Moments], None] = lambda moments: None
    of_part: Callable[[str], "Memory"] = lambda name: Memory()


@dataclasses.dataclass(frozen=True)
class InMemory:
    """Images of one size, all in memory.

    Args:
        images: uint8 (count, height, width, channels).
        labels: int32 (count,); of several labels, float32 (count, classes) of zeros and ones.
        moments: mean and standard deviation of each channel, where they are known.
        weights: of the images in the loss, float32 (count,) of mean 1; None where all are alike.
    """

    images: np.ndarray
    labels: np.ndarray
    moments: Moments | None = None
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, mask: np.ndarray, name: str | None = None) -> "InMemory":
        """Returns the images for which mask, boolean (count,), is true; the name has no use."""
        weights = None if self.weights is None else of_mean_one(self.weights[mask])
        return InMemory(self.images[mask], self.labels[mask], weights=weights)

    def all_labels(self) -> np.ndarray:
        """Returns `labels`."""
        return self.labels

    def train_batches(
        self, indices_and_draws: tf.data.Dataset, augment: str, mean: Sequence[float] = (0,)
    ) -> tf.data.Dataset:
        """Maps batches of (indices, draws) to batches of (images, labels), or with weights.

        Args:
            indices_and_draws: from a `DataOrder`.
            augment: as for `augmentation.augmented`.
            mean: of each channel, in 0 to 255.
        """
        images, labels = self._tensors()

        def fetch(indices, draws):
            batch = tf.gather(images, indices)
            batch = augmentation.augmented(batch, draws, augment, mean, dense=False)
            return batch, tf.gather(labels, indices), *_weights_at(self.weights, indices)

        return indices_and_draws.map(fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def eval_images(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """Maps single indices to (image, label)."""
        images, labels = self._tensors()
        return indices.map(lambda index: (images[index], labels[index]))

    def _tensors(self):
        # tf.data runs on the CPU; on an accelerator the images would only take up memory.
        with tf.device("CPU"):
            return tf.constant(self.images), tf.constant(self.labels)

    def statistics(self) -> Moments:
        """Mean and standard deviation of each channel over all images, in 0 to 255."""
        return self.moments or _moments(np.array_split(self.images, 1 + len(self) // _PART_IMAGES))

    def unreadable(self, indices: Iterable[int]) -> list[str]:
        """Returns nothing: images in memory can be read."""
        return []

    def where(self, index: int) -> str:
        """Names an image."""
        return f"image {index}"

    def file(self, index: int) -> bytes:
        """An image as a PNG file."""
        return tf.io.encode_png(self.images[index]).numpy()

    def digest(self) -> str:
        """Returns 12 letters that tell the images from others, by their labels in order."""
        return hashlib.sha256(_stable_bytes(self.labels)).hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Image files of any size, decoded and resized when needed, if `limits.problem` allows it.

    Args:
        read: maps a scalar int64 index to the file's bytes, a scalar string, and its
            label, a scalar int32; of several labels, float32 (classes,) of zeros and ones.
        count: number of images.
        size: height and width of the images that come out, in pixels.
        problem: names an image and says why it cannot be read or decoded, None if it can;
            by default None.
        where: names an image: by its path, if it is a file of its own.
        listing: returns names and sizes of all files, in order, without their folder; by
            default nothing.
        memory: the statistics, where they are known already.
        resize_ratio, interpolation: of evaluation crops, as in `DatasetInfo`.
        labels: of all images, as for `InMemory`; None where only reading the files tells them.
        find_labels: reads them; needed where labels is None.
        weights: as for `InMemory`.
    """

    read: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    count: int
    size: int
    problem: Callable[[int], str | None] = lambda index: None
    where: Callable[[int], str] = lambda index: f"image {index}"
    listing: Callable[[], bytes] = bytes
    memory: Memory = Memory()
    resize_ratio: float = augmentation.EVAL_RESIZE_RATIO
    interpolation: str = "bilinear"
    labels: np.ndarray | None = None
    find_labels: Callable[[], np.ndarray] | None = None
    weights: np.ndarray | None = None

    # The error of the mean is then about 1 % of the standard deviation.
    STATISTICS_IMAGES = 4096
    DIGEST_IMAGES = 64

    def __len__(self) -> int:
        return self.count

    def select(self, mask: np.ndarray, name: str | None = None) -> "Encoded":
        """Returns the images for which mask, boolean (count,), is true.

        Args:
            mask: of the images.
            name: of this part of the images; its statistics are then remembered.
        """
        numbers = np.flatnonzero(mask)
        chosen = tf.constant(numbers)
        labels = None if self.labels is None else self.labels[numbers]
        weights = None if self.weights is None else of_mean_one(self.weights[numbers])
        return Encoded(
            lambda index: self.read(chosen[index]),
            len(numbers),
            self.size,
            lambda index: self.problem(int(numbers[index])),
            lambda index: self.where(int(numbers[index])),
            lambda: self.listing() + numbers.astype("<i8").tobytes(),
            self.memory.of_part(name) if name else Memory(),
            resize_ratio=self.resize_ratio,
            interpolation=self.interpolation,
            labels=labels,
            find_labels=lambda: self.all_labels()[numbers],
            weights=weights,
        )

    def all_labels(self) -> np.ndarray:
        """Returns the labels of all images; reads every file where only that tells them.

        Raises:
            ValueError: if a file cannot be read.
        """
        if self.labels is not None:
            return self.labels
        if self.find_labels is not None:
            return self.find_labels()
        read = tf.data.Dataset.range(len(self)).map(
            lambda index: self.read(index)[1],
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        found = []
        try:
            with console.counting("Reading labels", len(self)) as advance:
                for labels in read.batch(_PART_LABELS).as_numpy_iterator():
                    found.append(labels)
                    advance(len(labels))
        except tf.errors.OpError:
            done = _PART_LABELS * len(found)
            self.check_readable(np.arange(done, min(done + _PART_LABELS, len(self))))
            raise
        return np.concatenate(found)

    def file(self, index: int) -> bytes:
        """The bytes of an image's file."""
        encoded, _ = self.read(tf.constant(index, tf.int64))
        return encoded.numpy()

    def train_batches(
        self, indices_and_draws: tf.data.Dataset, augment: str, mean: Sequence[float] = (0,)
    ) -> tf.data.Dataset:
        """Maps batches of (indices, draws) to batches as `InMemory` does."""
        read = augmentation_text.parse(augment)

        def fetch(index, draws):
            encoded, label = self._read_admitted(index)
            if crop := augmentation.CROPS.get(read.base):
                image = crop(encoded, draws, self.size)
            else:
                image = self._center_crop(encoded)[None]
                [image] = tf.unstack(augmentation.augmented(image, draws[None], read.base, mean))
            return draws, image, label, *_weights_at(self.weights, index)

        def change(draws, images, *rest):
            return augmentation.changed(images, draws, read, mean, dense=False), *rest

        batch_size = indices_and_draws.element_spec[0].shape[0]
        parallel = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
        images = indices_and_draws.unbatch().map(fetch, **parallel)
        if read.operations:
            images = images.batch(_CHANGED_IMAGES).map(change, **parallel).unbatch()
        else:
            images = images.map(lambda draws, *rest: rest)
        return images.batch(batch_size, drop_remainder=True)

    def eval_images(self, indices: tf.data.Dataset) -> tf.data.Dataset:
        """Maps single indices to (image, label)."""

        def fetch(index):
            encoded, label = self._read_admitted(index)
            return self._center_crop(encoded), label

        return indices.map(fetch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)

    def _center_crop(self, encoded):
        shape = (self.size, self.size, 3)
        return augmentation.fit(encoded, shape, self.resize_ratio, self.interpolation)

    def _read_admitted(self, index):
        # The file may have changed since it was checked.
        encoded, label = self.read(index)
        covered = limits.covered_sides((self.size, self.size), self.resize_ratio)
        return limits.admitted(encoded, covered), label

    def statistics(self) -> Moments:
        """Mean and standard deviation of each channel over evenly spaced images, in 0 to 255.

        Raises:
            ValueError: if some of them cannot be read; it lists all of these.
        """
        if self.memory.moments is not None:
            return self.memory.moments
        indices = spread(len(self), self.STATISTICS_IMAGES)
        images = self.eval_images(tf.data.Dataset.from_tensor_slices(indices))
        try:
            with console.counting("Mean and deviation of images", len(indices)) as advance:
                parts = (images for images, _ in images.batch(_PART_IMAGES).as_numpy_iterator())
                moments = _moments(parts, advance)
        except tf.errors.OpError:
            self.check_readable(indices)
            raise
        self.memory.keep(moments)
        return moments

    def digest(self) -> str:
        """Returns 12 letters that tell the images from others, in any folder.

        Hashes the listing of all images, and file and label of some, evenly spaced.

        Raises:
            ValueError: if some of these cannot be read.
        """
        digest = hashlib.sha256(self.listing())
        indices = spread(len(self), self.DIGEST_IMAGES)
        try:
            for index in indices:
                encoded, label = self.read(tf.constant(index, tf.int64))
                label = label.numpy()
                text = _stable_bytes(label) if label.ndim else b"%d" % label
                digest.update(hashlib.sha256(encoded.numpy()).digest() + text)
        except tf.errors.OpError:
            self.check_readable(indices)
            raise
        return digest.hexdigest()[:12]

    def unreadable(self, indices: Iterable[int]) -> list[str]:
        """Reads images one by one and describes those that cannot be used."""
        problems = map(self.problem, dict.fromkeys(map(int, indices)))
        return [problem for problem in problems if problem]

    def check_readable(self, indices: np.ndarray) -> None:
        """Raises ValueError, with a line for each, if some of these images cannot be read."""
        if problems := self.unreadable(indices):
            listing = "\n".join(f"  {problem}" for problem in problems)
            raise ValueError(
                f"Every image must be readable. Received: {len(problems)} unreadable of "
                f"{len(indices)} that were checked:\n{listing}"
            )


@dataclasses.dataclass(frozen=True)
class Findings:
    """Facts about the files of a data set that its reader should know.

    Args:
        problems: (path, why) of each file that was left out.
        duplicates: groups of paths whose files have the same contents.
    """

    problems: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The sources of a data set, as its loader returns them.

    Args:
        train: training images.
        evaluation: evaluation images.
        class_names: by label.
        test: images for a last test; None without them.
        findings: about the files.
        division: the split of each image, where percentages divide the set.
    """

    train: InMemory | Encoded
    evaluation: InMemory | Encoded
    class_names: Sequence[str]
    test: InMemory | Encoded | None = None
    findings: Findings = Findings()
    division: Division | None = None


def of_mean_one(weights: np.ndarray) -> np.ndarray:
    """Scales weights to a mean of 1, float32; weights that are all 0 stay as they are."""
    mean = weights.mean(dtype=np.float64) if len(weights) else 0
    return (weights / (mean or 1)).astype(np.float32)


def spread(count: int, most: int) -> np.ndarray:
    """At most `most` of `count` indices, evenly spaced, int64, ascending."""
    return np.linspace(0, count - 1, min(count, most), dtype=np.int64)


def _weights_at(weights, indices):
    """A tuple of the weights at indices, empty where images have none."""
    return () if weights is None else (tf.gather(tf.constant(weights), indices),)


def _stable_bytes(labels):
    """Labels as bytes that are the same on every machine."""
    return labels.astype("<f4" if labels.dtype == np.float32 else "<i4").tobytes()


def _moments(parts: Iterable[np.ndarray], advance: Callable[[int], None] = lambda count: None):
    """Mean and standard deviation of each channel of images, uint8 (any, ..., channels)."""
    values, sums, squares = 0, 0, 0
    for part in parts:
        # Products of whole numbers this small are exact.
        pixels = part.reshape(-1, part.shape[-1]).astype(np.float64)
        values += len(pixels)
        sums += np.ones(len(pixels)) @ pixels
        squares += (pixels.T @ pixels).diagonal()
        advance(len(part))
    means = sums / values
    variances = (squares * values - sums**2) / values**2
    # A constant channel would otherwise be divided by zero.
    return means.tolist(), np.maximum(np.sqrt(np.maximum(variances, 0)), 1.0).tolist()
