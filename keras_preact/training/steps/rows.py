"""Many variables in one float32 row, so that a step reads, changes and writes a single array.

Each variable of a deep net is small: reading and updating hundreds of them one by one takes longer
than their arithmetic, on the host as well as in a compiled function with as many inputs.
"""

import math
from collections.abc import Iterable, Mapping

import keras
import numpy as np
import tensorflow as tf

# Float32 numbers in 64 bytes, the alignment at which TensorFlow splits an array without a copy.
WIDTH = 16
_BLOCK_LINES = 1024


class RowLayout:
    """The places of variables in a row.

    A row is a float32 array (lines, WIDTH). Each variable begins at a line of its own, and zeros
    fill its last one.

    Args:
        variables: of float32, in the order in which they lie in the row.

    Raises:
        ValueError: if a variable is of another type.
    """

    def __init__(self, variables: Iterable[keras.Variable]):
        self.shapes = {}
        for variable in variables:
            if variable.dtype != "float32":
                raise ValueError(
                    "Weights must be float32 in training; give the layer a policy such as "
                    f"mixed_bfloat16. Received: {variable.path} of {variable.dtype}"
                )
            self.shapes[variable.path] = tuple(variable.shape)
        self._lines = {path: -(-math.prod(shape) // WIDTH) for path, shape in self.shapes.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a row: (lines, WIDTH), one line where there is no variable."""
        # TensorFlow crashes when it sends an array without elements to other workers.
        return max(1, sum(self._lines.values())), WIDTH

    def lines(self, paths: Iterable[str]) -> int:
        """Returns the number of lines of some variables."""
        return sum(self._lines[path] for path in paths)

    def pack(self, values: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the row of values by path."""
        pieces = [self._padded(path, values[path]) for path in self.shapes]
        return tf.concat(pieces, axis=0) if pieces else tf.zeros(self.shape)

    def unpack(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the values in a row by path."""
        if not self.shapes:
            return {}
        pieces = tf.split(row, [*self._lines.values()])
        values = {}
        for (path, shape), piece in zip(self.shapes.items(), pieces, strict=True):
            size = math.prod(shape)
            if size % WIDTH:
                piece = tf.reshape(piece, [-1])[:size]
            values[path] = tf.reshape(piece, shape)
        return values

    def to_arrays(self, row: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the values in a row on the host by path."""
        values, begin = {}, 0
        for path, shape in self.shapes.items():
            end = begin + self._lines[path]
            values[path] = row[begin:end].ravel()[: math.prod(shape)].reshape(shape)
            begin = end
        return values

    def from_arrays(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns the row of values on the host by path."""
        row, begin = np.zeros(self.shape, np.float32), 0
        for path, shape in self.shapes.items():
            end = begin + self._lines[path]
            row[begin:end].reshape(-1)[: math.prod(shape)] = values[path].ravel()
            begin = end
        return row

    def to_values(self, row: np.ndarray) -> np.ndarray:
        """Returns the values in a row on the host without filling: (values,)."""
        arrays = self.to_arrays(row).values()
        return np.concatenate([array.ravel() for array in arrays] or [np.zeros(0, np.float32)])

    def from_values(self, values: np.ndarray) -> np.ndarray:
        """Returns the row of values from `to_values`."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        parts = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
        return self.from_arrays(dict(zip(self.shapes, parts, strict=True)))

    def _padded(self, path, value):
        flat = tf.reshape(value, [-1])
        missing = -math.prod(self.shapes[path]) % WIDTH
        if missing:
            flat = tf.concat([flat, tf.zeros([missing])], axis=0)
        return tf.reshape(flat, [-1, WIDTH])


def norm(row: tf.Tensor) -> tf.Tensor:
    """Returns the Euclidean norm of a row, a float32 scalar."""
    # Blocks come first: float32 loses digits in one sum of millions.
    whole = row.shape[0] // _BLOCK_LINES * _BLOCK_LINES
    first, rest = tf.split(row, [whole, row.shape[0] - whole])
    blocks = tf.reshape(tf.square(first), [-1, _BLOCK_LINES * WIDTH])
    sums = tf.reduce_sum(blocks, axis=1)
    return tf.sqrt(tf.reduce_sum(sums) + tf.reduce_sum(tf.square(rest)))


def are_finite(rows: Iterable[tf.Variable]) -> bool:
    """Whether all values in rows are finite."""
    return bool(_are_finite(tuple(rows)))


@tf.function
def _are_finite(rows):
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(row)) for row in rows])
