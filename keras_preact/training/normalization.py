"""Images as networks want them."""

from collections.abc import Callable, Sequence

import tensorflow as tf


def make_normalizer(mean: Sequence[float], std: Sequence[float]) -> Callable:
    """A function from images in 0 to 255, of any dtype, to float32 ones as networks want them.

    Args:
        mean: of each channel, in 0 to 255.
        std: standard deviation of each channel, likewise.
    """
    # Constants are made where they are used: each replica then has its own.
    mean, std = tuple(mean), tuple(std)
    return lambda images: (tf.cast(images, tf.float32) - tf.constant(mean)) / tf.constant(std)
