"""Random numbers of an image: hashes of its draws and a counter.

A hash of whole numbers gives the same bits on CPUs, on GPUs and under XLA, for any number of
counters: an augmentation draws as many numbers as it needs, and one operation's numbers do not
depend on the others'.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

# Of a 32-bit integer hash with low bias, found by search: github.com/skeeto/hash-prospector,
# issue 19. Both are below 2^31, so their products with 32-bit numbers fit into int64.
_MULTIPLIERS = (0x21F0AAAD, 0x735A2D97)
_GOLDEN = 0x9E3779B9
_MASK = 2**32 - 1


def random_bits(draws: tf.Tensor, counters: Sequence[int]) -> tf.Tensor:
    """Returns a random number for each image and counter.

    Args:
        draws: int32 (batch, DRAWS), at least 0.
        counters: whole numbers in 0 to 2^20.

    Returns:
        int64 (batch, counters), in 0 to 2^32 - 1.
    """
    # Distinct states even where all draws are 0.
    states = (np.asarray(counters, np.int64) + 1) * _GOLDEN & _MASK
    mixed = tf.constant(states[None], tf.int64)
    for draw in tf.unstack(tf.cast(draws, tf.int64), axis=1):
        mixed = _mix(tf.bitwise.bitwise_xor(mixed, draw[:, None]))
    return mixed


def below(bits: tf.Tensor, bound: int | tf.Tensor) -> tf.Tensor:
    """Turns random bits into whole numbers, int64, of 0 to bound - 1; bound is below 2^31."""
    return tf.bitwise.right_shift(bits * bound, tf.constant(32, tf.int64))


def _mix(state):
    for multiplier, shift in zip(_MULTIPLIERS, (16, 15), strict=True):
        state = _shifted_xor(state, shift) * multiplier
        state = tf.bitwise.bitwise_and(state, tf.constant(_MASK, tf.int64))
    return _shifted_xor(state, 15)


def _shifted_xor(state, shift):
    shifted = tf.bitwise.right_shift(state, tf.constant(shift, tf.int64))
    return tf.bitwise.bitwise_xor(state, shifted)
