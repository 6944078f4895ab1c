"""Many variables in one float32 row, so that a step reads, changes and writes a single array.

Each variable of a deep net is small: reading and updating hundreds of them one by one takes longer
than their arithmetic, on the host as well as in a compiled function with as many inputs.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

# Float32 numbers in 64 bytes, the alignment at which TensorFlow splits an array without a copy.
WIDTH = 16
_BLOCK_LINES = 1024


class RowLayout:
    """The places of variables in a row.

    A row is a float32 array (lines, WIDTH). Each variable begins at a line of its own, and zeros
    fill its last one. Variables that are stacked lie behind the first of them, so that a stack is
    a part of the row. Tensors that come from a row or go into one have keys: the path of a
    variable, or of the first one of a stack.

    Args:
        variables: of float32, in order.
        stacks: the paths of variables of one shape that are stacked; others are ignored.

    Attributes:
        shapes: of the variables by path, in the order in which they lie in the row.

    Raises:
        ValueError: if a variable is of another type.
    """

    def __init__(self, variables: Iterable[keras.Variable], stacks: Iterable[Sequence[str]] = ()):
        shapes = {}
        for variable in variables:
            if variable.dtype != "float32":
                raise ValueError(
                    "Weights must be float32 in training; give the layer a policy such as "
                    f"mixed_bfloat16. Received: {variable.path} of {variable.dtype}"
                )
            shapes[variable.path] = tuple(variable.shape)
        self._given_order = list(shapes)
        self._stacks = {stack[0]: tuple(stack) for stack in stacks if stack[0] in shapes}
        self._firsts = {path: first for first, stack in self._stacks.items() for path in stack}
        in_row = itertools.chain.from_iterable(map(self._stack, self.keys(shapes)))
        self.shapes = {path: shapes[path] for path in in_row}
        self._lines = {path: -(-math.prod(shape) // WIDTH) for path, shape in self.shapes.items()}

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a row: (lines, WIDTH), one line where there is no variable."""
        # TensorFlow crashes when it sends an array without elements to other workers.
        return max(1, sum(self._lines.values())), WIDTH

    def lines(self, paths: Iterable[str]) -> int:
        """Returns the number of lines of some variables."""
        return sum(self._lines[path] for path in paths)

    def keys(self, paths: Iterable[str]) -> list[str]:
        """Returns the keys of variables, each once.

        Args:
            paths: with all variables of a stack, or none.
        """
        return list(dict.fromkeys(self._firsts.get(path, path) for path in paths))

    def pack(
        self, values: Mapping[str, tf.Tensor], paths: Iterable[str] | None = None
    ) -> tf.Tensor:
        """Returns the row of values by key; the part of a row where paths are given."""
        keys = self.keys(self.shapes if paths is None else paths)
        pieces = [self._padded(key, values[key]) for key in keys]
        return tf.concat(pieces, axis=0) if pieces else tf.zeros(self.shape)

    def lines_where(self, is_wanted: Callable[[str], bool]) -> np.ndarray:
        """Returns which lines belong to the variables of some paths: boolean (lines, 1)."""
        wanted = [is_wanted(path) for path in self.shapes] or [False]
        return np.repeat(wanted, [*self._lines.values()] or [1])[:, None]

    def unpack(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the values in a row by key."""
        if not self.shapes:
            return {}
        keys = self.keys(self.shapes)
        pieces = tf.split(row, [self.lines(self._stack(key)) for key in keys])
        values = {}
        for key, piece in zip(keys, pieces, strict=True):
            shape = self.shapes[key]
            size, count = math.prod(shape), len(self._stack(key))
            if size % WIDTH:
                piece = tf.reshape(piece, [count, -1])[:, :size]
            values[key] = tf.reshape(piece, [count, *shape] if key in self._stacks else shape)
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
        """Returns the values in a row on the host, in the given order of variables: (values,)."""
        arrays = self.to_arrays(row)
        parts = [arrays[path].ravel() for path in self._given_order]
        return np.concatenate(parts or [np.zeros(0, np.float32)])

    def from_values(self, values: np.ndarray) -> np.ndarray:
        """Returns the row of values from `to_values`."""
        sizes = [math.prod(self.shapes[path]) for path in self._given_order]
        parts = np.split(values, np.cumsum(sizes)[:-1]) if sizes else []
        return self.from_arrays(dict(zip(self._given_order, parts, strict=True)))

    def _stack(self, key):
        """Returns the paths of the variables that a key stands for."""
        return self._stacks.get(key, (key,))

    def _padded(self, key, value):
        size = math.prod(self.shapes[key])
        flat = tf.reshape(value, [len(self._stack(key)), size])
        if size % WIDTH:
            flat = tf.pad(flat, [[0, 0], [0, -size % WIDTH]])
        return tf.reshape(flat, [-1, WIDTH])


class Part:
    """Some variables of a row, as a shorter row in the same order.

    The part of all variables is the row itself, and costs nothing.

    Args:
        layout: of the row.
        paths: of the variables, at least one where the layout has any.
    """

    def __init__(self, layout: RowLayout, paths: Collection[str]):
        self._layout = layout
        self.paths = [path for path in layout.shapes if path in paths]
        # Runs of neighbours: (whether they are in the part, lines).
        self._runs = [
            (chosen, layout.lines(run))
            for chosen, run in itertools.groupby(layout.shapes, key=lambda path: path in paths)
        ]

    @property
    def is_whole(self) -> bool:
        """Whether the part has all variables."""
        return len(self.paths) == len(self._layout.shapes)

    def pack(self, values: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the shorter row of values by key."""
        return self._layout.pack(values, self.paths)

    @property
    def keys(self) -> list[str]:
        """The keys of the variables."""
        return self._layout.keys(self.paths)

    def of(self, row: tf.Tensor) -> tf.Tensor:
        """Returns the shorter row of a row."""
        if self.is_whole:
            return row
        pieces = tf.split(row, [lines for _, lines in self._runs])
        return tf.concat(
            [p for p, (chosen, _) in zip(pieces, self._runs, strict=True) if chosen], 0
        )

    def put(self, row: tf.Tensor, part: tf.Tensor) -> tf.Tensor:
        """Returns a row with another part; the other lines stay as they are, to the last bit."""
        if self.is_whole:
            return part
        others = tf.split(row, [lines for _, lines in self._runs])
        own = iter(tf.split(part, [lines for chosen, lines in self._runs if chosen]))
        pieces = zip(others, self._runs, strict=True)
        return tf.concat([next(own) if chosen else other for other, (chosen, _) in pieces], axis=0)

    def repeated(self, values: Mapping[str, float]) -> np.ndarray:
        """Returns a number by path as a column of the part: float32 (lines, 1)."""
        numbers = [np.full([self._layout.lines([p]), 1], values[p], np.float32) for p in self.paths]
        return np.concatenate(numbers)


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
