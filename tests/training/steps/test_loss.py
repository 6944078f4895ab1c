"""The training loss against formulas in float64."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_preact.training.steps.loss import correct, cross_entropy, mix, mixing_weight

CLASSES = 7


def logits_and_labels(scale=3.0, count=40):
    generator = np.random.default_rng(0)
    logits = (scale * generator.normal(size=(count, CLASSES))).astype(np.float32)
    return logits, generator.integers(0, CLASSES, count).astype(np.int32)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def smoothed(labels, smoothing):
    """Label vectors of equation (3) and section 7 of the paper, with u(k) = 1 / K."""
    return (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("scale", [0.01, 3.0, 1e4])
def test_the_loss_is_the_cross_entropy_with_the_smoothed_label(smoothing, scale):
    logits, labels = logits_and_labels(scale)
    losses = cross_entropy(tf.constant(logits), tf.constant(labels), smoothing).numpy()
    expected = -(smoothed(labels, smoothing) * log_softmax(logits)).sum(axis=1)
    assert losses.shape == (40,) and losses.dtype == np.float32
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_its_gradient_is_the_softmax_less_the_smoothed_label(smoothing):
    logits, labels = logits_and_labels()
    with tf.GradientTape() as tape:
        x = tf.constant(logits)
        tape.watch(x)
        losses = cross_entropy(x, tf.constant(labels), smoothing)
    expected = np.exp(log_softmax(logits)) - smoothed(labels, smoothing)
    np.testing.assert_allclose(tape.gradient(losses, x), expected, atol=1e-6)


def test_smoothing_rewards_no_certainty():
    # The optimum of a smoothed label has the probabilities of the label itself.
    label = np.array([2], np.int32)
    best = np.log(smoothed(label, 0.1)).astype(np.float32)
    entropy = -(smoothed(label, 0.1) * np.log(smoothed(label, 0.1))).sum()
    at_best, certain = (float(cross_entropy(z, label, 0.1)[0]) for z in (best, 20 * best))
    assert at_best == pytest.approx(entropy, rel=1e-5)
    assert certain > at_best


def test_an_image_is_correct_if_the_largest_logit_is_its_labels():
    logits, labels = logits_and_labels(count=200)
    right = correct(tf.constant(logits), tf.constant(labels))
    assert right.dtype == tf.float32
    np.testing.assert_array_equal(right, logits.argmax(axis=1) == labels)
    assert 0 < np.sum(right) < 200


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
