"""Random numbers of an image: reproducible, uniform, and independent of one another."""

import numpy as np
import slow_operations
import tensorflow as tf

from keras_preact.data.order import DataOrder
from keras_preact.data.random_bits import below, random_bits

COUNT, COUNTERS = 20_000, 12


def bits_of(draws):
    return random_bits(tf.constant(draws), range(COUNTERS)).numpy()


def draws_of(count, seed=0):
    return DataOrder(count, count, seed).batch(0)[1]


def test_they_are_the_hashes_of_a_slow_reference_under_xla_too():
    draws = draws_of(50)
    draws[0], draws[1] = 0, 2**31 - 1
    expected = [
        [slow_operations.random_bits(row, counter) for counter in range(COUNTERS)] for row in draws
    ]
    np.testing.assert_array_equal(bits_of(draws), expected)
    compiled = tf.function(lambda rows: random_bits(rows, range(COUNTERS)), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(draws)), expected)


def test_every_bit_of_every_counter_is_set_in_half_of_the_images():
    bits = bits_of(draws_of(COUNT))
    shares = [(bits >> place & 1).mean(axis=0) for place in range(32)]
    # The standard deviation is 0.0035; of 384 numbers, none should lie 5 away.
    assert np.abs(np.array(shares) - 0.5).max() < 5 * 0.5 / np.sqrt(COUNT)


def test_numbers_are_uniform_and_pairs_of_counters_are_independent():
    cells = below(random_bits(tf.constant(draws_of(COUNT)), range(COUNTERS)), 16).numpy()

    def chi_square(counts):
        expected = COUNT / len(counts)
        return ((counts - expected) ** 2 / expected).sum()

    for counter in range(COUNTERS):
        alone = np.bincount(cells[:, counter], minlength=16)
        assert chi_square(alone) < 15 + 5 * np.sqrt(2 * 15)
        following = cells[:, (counter + 1) % COUNTERS]
        both = np.bincount(16 * cells[:, counter] + following, minlength=256)
        assert chi_square(both) < 255 + 5 * np.sqrt(2 * 255)


def test_neighbouring_draws_give_unrelated_numbers():
    # Counters of the lowest entropy: draws that differ in one bit.
    draws = np.zeros((COUNT, 4), np.int32)
    draws[:, 2] = np.arange(COUNT)
    bits = bits_of(draws)
    changed = bits[0::2] ^ bits[1::2]
    flipped = [(changed >> place & 1).mean() for place in range(32)]
    assert np.abs(np.array(flipped) - 0.5).max() < 0.01
    correlation = np.corrcoef(bits.astype(float), rowvar=False) - np.eye(COUNTERS)
    assert np.abs(correlation).max() < 5 / np.sqrt(COUNT)


def test_random_bits_do_not_follow_the_draws_that_crop_and_mirror():
    draws = draws_of(COUNT)
    bits = bits_of(draws)
    for column in range(3):
        correlation = np.corrcoef(draws[:, column] % 2, bits[:, 0] >> 31)[0, 1]
        assert abs(correlation) < 5 / np.sqrt(COUNT)
