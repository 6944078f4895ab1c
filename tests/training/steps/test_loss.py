"""The training loss against formulas in float64."""

import numpy as np
import pytest
import tensorflow as tf
from label_losses import CLASSES, binary, log_softmax, logits_and_labels, smoothed

from keras_preact.training.steps.loss import (
    binary_cross_entropy,
    chosen,
    correct,
    cross_entropy,
    smoothed_targets,
)


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [0.01, 3.0, 1e4])
def test_binary_cross_entropy_is_the_mean_over_classes_of_one_hot_targets(smoothing, scale):
    logits, labels = logits_and_labels(scale)
    targets = smoothed_targets(tf.constant(labels), CLASSES, smoothing, multi_label=False)
    np.testing.assert_allclose(targets, smoothed(labels, smoothing), atol=1e-7)
    losses = binary_cross_entropy(tf.constant(logits), targets)
    expected = binary(logits, smoothed(labels, smoothing))
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_several_labels_are_smoothed_towards_one_half():
    labels = tf.constant([[0.0, 1.0, 1.0]])
    targets = smoothed_targets(labels, 3, 0.2, multi_label=True)
    np.testing.assert_allclose(targets, [[0.1, 0.9, 0.9]], atol=1e-7)
    assert smoothed_targets(labels, 3, 0.0, multi_label=True) is labels


def test_several_labels_are_correct_if_all_of_them_are():
    logits = tf.constant([[1.0, -1.0], [1.0, 1.0], [-2.0, -3.0]])
    labels = tf.constant([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_array_equal(correct(logits, labels), [1, 0, 1])


def test_cross_entropy_of_several_labels_is_refused_and_the_other_chosen():
    assert chosen(None, multi_label=True) == "binary_cross_entropy"
    assert chosen(None, multi_label=False) == "cross_entropy"
    assert chosen("binary_cross_entropy", multi_label=False) == "binary_cross_entropy"
    with pytest.raises(ValueError, match="loss must be binary_cross_entropy where"):
        chosen("cross_entropy", multi_label=True)
