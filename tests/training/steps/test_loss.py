"""The training loss against formulas in float64."""

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training.steps.loss import (
    Objective,
    binary_cross_entropy,
    chosen,
    correct,
    cross_entropy,
    smoothed_targets,
)
from keras_preact.training.steps.mixing import Mixture

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


def log_sigmoid(values):
    return -np.logaddexp(0, -values.astype(np.float64))


def binary(logits, targets, positive=1.0):
    """The mean over classes of PyTorch's BCEWithLogitsLoss, in float64."""
    losses = -(positive * targets * log_sigmoid(logits) + (1 - targets) * log_sigmoid(-logits))
    return losses.mean(axis=1)


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


def sums(objective, logits, labels, weights=None, mixture=None, batch_size=10):
    weights = None if weights is None else tf.constant(weights)
    labels = tf.constant(labels)
    return objective.sums(tf.constant(logits), labels, weights, mixture, batch_size).numpy()


CLASS_WEIGHTS = np.array([0.5, 2, 1, 0, 3, 1, 0.25], np.float32)


def test_the_weight_of_an_image_is_its_own_times_that_of_its_class():
    logits, labels = logits_and_labels()
    weights = np.random.default_rng(1).uniform(0, 2, 40).astype(np.float32)
    losses = -log_softmax(logits)[np.arange(40), labels]
    for of_classes, of_images, factors in (
        (None, weights, weights),
        (CLASS_WEIGHTS, None, CLASS_WEIGHTS[labels]),
        (CLASS_WEIGHTS, weights, CLASS_WEIGHTS[labels] * weights),
    ):
        objective = Objective(class_weights=of_classes)
        loss, right = sums(objective, logits, labels, of_images)
        # Divided by the batch size, whatever the weights.
        np.testing.assert_allclose(loss, (factors * losses).sum() / 10, rtol=1e-5)
        assert right == pytest.approx((logits.argmax(axis=1) == labels).sum() / 10)


def test_with_several_labels_the_weight_of_a_class_is_that_of_its_positive_terms():
    logits, _ = logits_and_labels()
    labels = (np.random.default_rng(2).random((40, CLASSES)) < 0.3).astype(np.float32)
    objective = Objective("binary_cross_entropy", class_weights=CLASS_WEIGHTS, multi_label=True)
    loss, _ = sums(objective, logits, labels)
    expected = binary(logits, labels, CLASS_WEIGHTS).sum() / 10
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_the_loss_of_a_mixture_is_the_mixture_of_weighted_losses(loss):
    logits, labels = logits_and_labels()
    weights = np.random.default_rng(1).uniform(0, 2, 40).astype(np.float32)
    objective = Objective(loss, 0.1, class_weights=CLASS_WEIGHTS)
    mixture = Mixture(tf.constant(0.3), tf.constant(0.3))

    def losses(labels, weights):
        targets = smoothed(labels, 0.1)
        if loss == "cross_entropy":
            values = -(targets * log_softmax(logits)).sum(axis=1)
        else:
            values = binary(logits, targets)
        return values * weights * CLASS_WEIGHTS[labels]

    expected = 0.3 * losses(labels, weights) + 0.7 * losses(labels[::-1], weights[::-1])
    found = sums(objective, logits, labels, weights, mixture)[0]
    np.testing.assert_allclose(found, expected.sum() / 10, rtol=1e-5)


@pytest.mark.parametrize(("share", "classes_there"), [(0.5, 2), (0.9, 1)])
def test_a_threshold_makes_both_classes_of_a_mixture_wholly_there(share, classes_there):
    logits, labels = logits_and_labels()
    objective = Objective("binary_cross_entropy", 0.1, target_threshold=0.2)
    mixture = Mixture(tf.constant(share), tf.constant(share))
    mixed = share * smoothed(labels, 0.1) + (1 - share) * smoothed(labels[::-1], 0.1)
    targets = (mixed > 0.2).astype(float)
    differ = labels != labels[::-1]
    assert (targets[differ].sum(axis=1) == classes_there).all()
    found = sums(objective, logits, labels, mixture=mixture)[0]
    np.testing.assert_allclose(found, binary(logits, targets).sum() / 10, rtol=1e-5)


def test_cross_entropy_of_several_labels_is_refused_and_the_other_chosen():
    assert chosen(None, multi_label=True) == "binary_cross_entropy"
    assert chosen(None, multi_label=False) == "cross_entropy"
    assert chosen("binary_cross_entropy", multi_label=False) == "binary_cross_entropy"
    with pytest.raises(ValueError, match="loss must be binary_cross_entropy where"):
        chosen("cross_entropy", multi_label=True)
