"""TF32: GPUs since Ampere multiply float32 with 10 bits of each factor, unless told not to."""

import contextlib
import os
from collections.abc import Iterator, Mapping

import tensorflow as tf

# The first compute capability with TF32.
FIRST_CAPABILITY = (8, 0)


def is_on(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether convolutions and matrix products of float32 may use TF32, as TensorFlow's do.

    Args:
        environment: the environment variables; NVIDIA's libraries read one of their own.
    """
    overridden = environment.get("NVIDIA_TF32_OVERRIDE") == "0"
    return tf.config.experimental.tensor_float_32_execution_enabled() and not overridden


@contextlib.contextmanager
def off() -> Iterator[None]:
    """Switches TF32 off within this context, to compare numbers; decorates functions as well.

    The switch is TensorFlow's, and so for all threads of the process.
    """
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)
