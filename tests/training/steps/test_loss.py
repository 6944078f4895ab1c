"""The training loss against formulas in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training.steps.loss import correct, cross_entropy

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
