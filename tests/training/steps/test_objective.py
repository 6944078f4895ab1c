"""The loss of a run: weights of images and classes, mixtures, thresholds."""

import numpy as np
import pytest
import tensorflow as tf
from label_losses import CLASSES, binary, log_softmax, logits_and_labels, smoothed

from keras_preact.training.steps.mixing import Mixture
from keras_preact.training.steps.objective import Objective


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
