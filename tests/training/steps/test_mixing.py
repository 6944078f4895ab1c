"""Mixup and CutMix against their definitions in NumPy."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_preact.training.steps.mixing import mix, mixing_weight


def test_mixing_pairs_each_image_with_its_mirror_place():
    values = np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    mixed = mix(tf.constant(values), tf.constant(0.25)).numpy()
    for place in range(5):
        expected = 0.25 * values[place].astype(np.float64) + 0.75 * values[4 - place]
        np.testing.assert_allclose(mixed[place], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mix(tf.constant(values), tf.constant(1.0)), values)


def draws(alpha, count, first_seed=0, xla=False):
    @tf.function(jit_compile=xla)
    def draw():
        numbers = tf.range(first_seed, first_seed + count)
        seeds = tf.stack([tf.fill([count], 5), numbers], axis=1)
        weigh = lambda seed: mixing_weight(alpha, seed)  # noqa: E731
        return tf.map_fn(weigh, seeds, fn_output_signature=tf.float32)

    return draw().numpy().astype(np.float64)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.4, 1.0, 8.0])
def test_the_weight_of_a_mixture_follows_the_beta_distribution(alpha, xla):
    count = 4000
    weights = draws(alpha, count, xla=xla)
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(weights.mean() - 0.5) < 4.5 * np.sqrt(variance / count)
    # The variance of a sample's variance follows from the kurtosis, 3 - 6 / (2a + 3).
    error = variance * np.sqrt((2 - 6 / (2 * alpha + 3)) / count)
    assert abs(weights.var() - variance) < 4.5 * error
    # One distribution function in a million is off by more (Dvoretzky, Kiefer and Wolfowitz).
    # Nearer to 1, float32 would round.
    places = np.linspace(0.001, 0.999, 500)
    found = (weights[:, None] <= places).mean(axis=0)
    expected = scipy.stats.beta(alpha, alpha).cdf(places)
    assert np.abs(found - expected).max() < np.sqrt(np.log(2e6) / (2 * count))


def test_a_seed_gives_one_weight_and_other_seeds_give_others():
    first = draws(0.4, 300)
    np.testing.assert_array_equal(first, draws(0.4, 300))
    assert len(np.unique(first)) > 290
    assert abs(np.corrcoef(first, draws(0.4, 300, first_seed=300))[0, 1]) < 0.25


def test_a_tiny_alpha_mixes_next_to_nothing():
    weights = draws(1e-4, 400)
    # One image of each pair remains, either of them.
    assert np.minimum(weights, 1 - weights).max() < 1e-3
    assert 140 < weights.sum() < 260
