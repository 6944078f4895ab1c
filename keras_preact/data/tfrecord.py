"""Random access to TFRecord files, which TensorFlow itself reads only in sequence."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.reading import reason

# A record is its length (8 bytes), a checksum of it (4), the data, a checksum of them (4).
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_HEADER_BYTES = _LENGTH_BYTES + _CHECKSUM_BYTES

RULE = "TFRecord files must be whole and undamaged."
_CUT_OFF = "the file ends before the record does"


@dataclasses.dataclass(frozen=True)
class TFRecordIndex:
    """Begin and length of every record of a list of files.

    Args:
        paths: the files.
        files: for each record, which of the paths holds it, ascending; int32 (count,).
        offsets: first byte of the record, of its header; int64 (count,).
        lengths: number of bytes of its data; int64 (count,).
    """

    paths: tuple[str, ...]
    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The data of one record: scalar int64 to scalar string, in a tf.data graph or out of it.

        Raises:
            tf.errors.OpError: if the file cannot be read, or a checksum does not match.
        """
        # TensorFlow's own reader, set on the record, reads without Python's lock and checks
        # both checksums.
        paths, files, offsets, lengths = self._tensors
        kind = {"output_types": [tf.string], "output_shapes": [tf.TensorShape([])]}
        with tf.device("CPU"):
            records = tf.raw_ops.TFRecordDatasetV2(
                filenames=paths[files[index]],
                compression_type="",
                buffer_size=lengths[index] + _HEADER_BYTES + _CHECKSUM_BYTES,
                byte_offsets=offsets[index],
            )
            one = tf.constant(1, tf.int64)
            first = tf.raw_ops.TakeDataset(input_dataset=records, count=one, **kind)
            return tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)[0]

    @functools.cached_property
    def _tensors(self):
        # Made outside of the calling graph, which would copy them as constants.
        with tf.init_scope(), tf.device("CPU"):
            return tuple(map(tf.constant, (self.paths, self.files, self.offsets, self.lengths)))

    def problem(self, index: int) -> str | None:
        """Why a record cannot be read, or None."""
        try:
            self.read(tf.constant(index, tf.int64))
        except tf.errors.OpError as error:
            if isinstance(error, tf.errors.DataLossError) and "corrupted" in error.message:
                return "checksum does not match"
            if isinstance(error, tf.errors.DataLossError | tf.errors.InvalidArgumentError):
                return _CUT_OFF
            return reason(error)
        return None

    def listing(self) -> bytes:
        """The names of the files, and the place of each record in them, as bytes."""
        names = "".join(f"{epath.Path(path).name}\n" for path in self.paths)
        lies = (self.files.astype("<i4"), self.offsets.astype("<i8"), self.lengths.astype("<i8"))
        return names.encode(errors="surrogateescape") + b"".join(part.tobytes() for part in lies)

    def where(self, index: int) -> str:
        """Names a record: its file, and its number in it, counted from 0."""
        file = self.files[index]
        return f"{self.paths[file]}, record {index - np.searchsorted(self.files, file)}"


def index_files(paths: Sequence[str]) -> TFRecordIndex:
    """Finds the records by hopping from header to header, without reading their data.

    Raises:
        ValueError: if a file cannot be opened or ends within a record, or the checksum of
            a record's length does not match; names the file and the record.
    """
    files, offsets, lengths = [], [], []
    for number, path in enumerate(paths):
        begin, before = 0, len(files)
        try:
            for end in _ends_of_records(epath.Path(path)):
                files.append(number)
                offsets.append(begin)
                lengths.append(end - begin - _HEADER_BYTES - _CHECKSUM_BYTES)
                begin = end
        except ValueError as error:
            raise ValueError(
                f"{RULE} Received: {path}, record {len(files) - before}: {error}"
            ) from None
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(f"{RULE} Received: {path}: {reason(error)}") from error
    return TFRecordIndex(
        tuple(map(str, paths)),
        np.array(files, np.int32),
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
    )


def _ends_of_records(path):
    size, begin = path.stat().length, 0
    with path.open("rb") as file:
        while begin < size:
            file.seek(begin)
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                raise ValueError(_CUT_OFF)
            if _masked_crc32c(header[:_LENGTH_BYTES]) != header[_LENGTH_BYTES:]:
                raise ValueError(
                    "checksum of the length does not match: the file is damaged, or holds no "
                    "TFRecords"
                )
            length = int.from_bytes(header[:_LENGTH_BYTES], "little")
            begin += _HEADER_BYTES + length + _CHECKSUM_BYTES
            if begin > size:
                raise ValueError(_CUT_OFF)
            yield begin


def _checksums_of_bytes():
    checksums = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        checksums = np.where(checksums & 1, checksums >> 1 ^ 0x82F63B78, checksums >> 1)
    return checksums.tolist()


_CHECKSUMS_OF_BYTES = _checksums_of_bytes()


def _masked_crc32c(data):
    """The checksum of a few bytes as TFRecord files store it: rotated and shifted, 4 bytes."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = _CHECKSUMS_OF_BYTES[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    checksum ^= 0xFFFFFFFF
    masked = (checksum >> 15 | checksum << 17) + 0xA282EAD8
    return (masked & 0xFFFFFFFF).to_bytes(4, "little")
