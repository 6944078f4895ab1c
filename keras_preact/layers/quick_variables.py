"""Variables of a network, created in a tenth of the time."""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

# One name for all. The slash at the end makes it absolute: no name scope comes before it.
_SHARED_NAME = "variable/"


@contextlib.contextmanager
def quick_variables() -> Iterator[None]:
    """Creates `tf.Variable`s quickly; they are the same, names included.

    TensorFlow prepares its operation VarHandleOp anew for each name that it has not seen, which
    takes ten times as long as all else in `tf.Variable`. Variables are therefore created under one
    name, and renamed. Calls of layers, and of `build`, belong into this context.
    """
    with tf.variable_creator_scope(_create):
        yield


def _create(next_creator: Callable[..., tf.Variable], **arguments) -> tf.Variable:
    name = arguments.get("name")
    # Graphs tell variables apart by these names.
    if name is None or not tf.executing_eagerly():
        return next_creator(**arguments)
    scope = tf.get_current_name_scope()
    name = f"{scope}/{name}" if scope else name
    variable = next_creator(**{**arguments, "name": _SHARED_NAME})
    for number, part in enumerate(getattr(variable, "values", [variable])):
        # No public way leads to the name.
        part._handle_name = f"{name}/replica_{number}:0" if number else f"{name}:0"
    return variable


def ones(shape: Sequence[int], dtype: str) -> tf.Tensor:
    """Equals `keras.initializers.Ones`, in a third of its time."""
    return tf.constant(np.ones(shape, dtype))


def zeros(shape: Sequence[int], dtype: str) -> tf.Tensor:
    """Equals `keras.initializers.Zeros`, in a third of its time."""
    return tf.constant(np.zeros(shape, dtype))
