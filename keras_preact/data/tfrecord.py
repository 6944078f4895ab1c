"""Random access to TFRecord files, which TensorFlow itself reads only in sequence."""

import dataclasses
import struct
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

# A record is its length (8 bytes), a checksum of it (4), the data, a checksum of them (4).
_HEADER_BYTES, _FOOTER_BYTES = 12, 4


@dataclasses.dataclass(frozen=True)
class TFRecordIndex:
    """Where every record of a list of files begins and how long it is.

    Args:
        paths: the files.
        files: for each record, which of the paths holds it; int32 (count,).
        offsets: first byte of the record's data; int64 (count,).
        lengths: number of bytes; int64 (count,).
    """

    paths: tuple[str, ...]
    files: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: tf.Tensor) -> tf.Tensor:
        """The data of one record: scalar int64 to scalar string, in a tf.data graph."""
        data = tf.numpy_function(self._read, [index], tf.string, stateful=False)
        return tf.ensure_shape(data, [])

    def _read(self, index):
        with epath.Path(self.paths[self.files[index]]).open("rb") as file:
            file.seek(self.offsets[index])
            return file.read(self.lengths[index])


def index_files(paths: Sequence[str]) -> TFRecordIndex:
    """Finds the records by hopping from header to header, without reading their data.

    Raises:
        ValueError: if a file ends within a record.
    """
    files, offsets, lengths = [], [], []
    for number, path in enumerate(paths):
        size = epath.Path(path).stat().length
        with epath.Path(path).open("rb") as file:
            position = 0
            while position < size:
                file.seek(position)
                header = file.read(_HEADER_BYTES)
                length = struct.unpack("<Q", header[:8])[0] if len(header) >= 8 else size
                end = position + _HEADER_BYTES + length + _FOOTER_BYTES
                if end > size:
                    raise ValueError(
                        f"{path} is no complete TFRecord file: record {len(files)} ends at byte "
                        f"{end}, the file at byte {size}"
                    )
                files.append(number)
                offsets.append(position + _HEADER_BYTES)
                lengths.append(length)
                position = end
    return TFRecordIndex(
        tuple(map(str, paths)),
        np.array(files, np.int32),
        np.array(offsets, np.int64),
        np.array(lengths, np.int64),
    )
