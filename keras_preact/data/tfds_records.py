"""The records of one split of a tensorflow-datasets set, read at random."""

import dataclasses
from typing import Any

import tensorflow as tf

from keras_preact.data.reading import image_problem, reason
from keras_preact.data.tfrecord import TFRecordIndex, index_files


@dataclasses.dataclass(frozen=True)
class Records:
    """The images and labels of a split. `open_records` makes it.

    Args:
        index: where the records lie.
        features: of the set, a `tfds.features.FeaturesDict`.
        keys: the names of the image's and the label's feature.
        covered: height and width in pixels that images are brought to cover.
    """

    index: TFRecordIndex
    features: Any
    keys: tuple[str, str]
    covered: tuple[int, int]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def classes(self) -> int:
        return self.features[self.keys[1]].num_classes

    def read(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The image file, a scalar string, and the label, a scalar int32, of one record.

        Raises:
            tf.errors.OpError: if it cannot be read, or its label is of no class.
        """
        encoded, label = self._parse(index)
        in_range = tf.logical_and(label >= 0, label < self.classes)
        with tf.control_dependencies([tf.debugging.Assert(in_range, ["no class", label])]):
            return encoded, tf.identity(label)

    def label(self, index: int) -> int:
        """The label of one record; -1 for none.

        Raises:
            tf.errors.OpError: if it cannot be read.
        """
        return int(self._parse(tf.constant(index, tf.int64))[1])

    def problem(self, index: int) -> str | None:
        """Names a record and says why it cannot be used; None if it can."""
        why = self.index.problem(index) or self._problem_of_content(index)
        return f"{self.index.where(index)}: {why}" if why else None

    def first_problem(self) -> str | None:
        """Reads all records; names the first that cannot be used and says why, or None."""

        def decode(index):
            encoded, _ = self.read(index)
            return tf.shape(tf.io.decode_image(encoded, channels=3, expand_animations=False))

        indices, good = tf.data.Dataset.range(len(self)), 0
        try:
            for _ in indices.map(decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True):
                good += 1
        except tf.errors.OpError:
            return self.problem(good)
        return None

    def _problem_of_content(self, index):
        try:
            encoded, label = self._parse(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            return f"not an example of this data set ({reason(error)})"
        if not 0 <= int(label) < self.classes:
            return label_rule(self.classes, int(label))
        try:
            return image_problem(encoded, self.covered)
        except tf.errors.OpError as error:
            return reason(error)

    def _parse(self, index):
        import tensorflow_datasets as tfds

        image, label = self.keys
        decoders = {image: tfds.decode.SkipDecoding()}
        example = self.features.deserialize_example(self.index.read(index), decoders=decoders)
        return example[image], tf.cast(example[label], tf.int32)


def label_rule(classes: int, label: int) -> str:
    """The sentence about a label that is of no class."""
    return f"label must be 0 to {classes - 1} (TFDS has -1 for none). Received: {label}"


def open_records(
    builder: Any, split: str, keys: tuple[str, str], covered: tuple[int, int] = (1, 1)
) -> Records:
    """Finds the records of a split of a `tfds.core.DatasetBuilder`; see `Records`.

    Raises:
        ValueError: if the set's files are not of TFRecords, one is damaged, or there are
            more or fewer records than the set's description says.
    """
    if builder.info.file_format.value != "tfrecord":
        raise ValueError(
            f"{builder.name} must be prepared as tfrecord files to be read at random. "
            f"Received: {builder.info.file_format.value}"
        )
    info = builder.info.splits[split]
    index = index_files(info.filepaths)
    check_count(builder, split, len(index))
    return Records(index, builder.info.features, keys, covered)


def check_count(builder: Any, split: str, count: int) -> None:
    """Raises ValueError if a split does not have as many examples as its description says."""
    expected = builder.info.splits[split].num_examples
    if count != expected:
        raise ValueError(
            f"{builder.name} must have {expected} examples in {split}, as its "
            f"dataset_info.json says. Found: {count} in {builder.data_dir}"
        )
