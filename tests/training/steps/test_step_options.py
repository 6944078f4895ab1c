"""Options of a step: several at once, mixup, smoothing, random layers."""

import itertools
import time

import numpy as np
import pytest
import tensorflow as tf
from small_labels import several_labels, weighted
from small_steps import assert_same, make

from keras_preact.data import datasets
from keras_preact.training.steps.mixing import mixing_weight


def test_waiting_for_input_is_measured():
    small = make(1, on_device=False)
    small.take(1)

    def slow(images, labels):
        tf.py_function(lambda: time.sleep(0.2), [], [])
        return images, labels

    data = datasets.load("digits")
    batches = iter(data.train(32).map(slow).prefetch(0))
    next(batches)
    waited = small.step(batches, 1)[0, -1]
    assert 0.15 < waited < 20


def log_probabilities(small, inputs):
    logits = small.state.network(inputs, training=True).numpy().astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_of_mixed_images_is_the_mixture_of_two_losses(smoothing):
    options = {"mixup_alpha": 0.4, "label_smoothing": smoothing}
    small, reference = make(1, **options), make(1)
    data = datasets.load("digits")
    images, labels = next(iter(data.train(32)))
    weight = float(mixing_weight(0.4, small.step._seed(tf.constant(0, tf.int64), 0, 0)))
    assert 0 < weight < 1
    normalized = (images.numpy() - np.array(data.info.mean)) / data.info.std
    mixed = weight * normalized + (1 - weight) * normalized[::-1]
    log_p = log_probabilities(reference, mixed.astype(np.float32))
    targets = np.eye(10)[labels.numpy()]
    targets = weight * targets + (1 - weight) * targets[::-1]
    targets = (1 - smoothing) * targets + smoothing / 10
    expected = -(targets * log_p).sum(axis=1).mean()
    np.testing.assert_allclose(small.take(1)["loss"], expected, rtol=1e-4)


CLASS_WEIGHTS = {str(number): 0.2 * number for number in range(10)}


@pytest.mark.parametrize("on_device", [True, False])
def test_images_and_classes_count_as_often_as_their_weights_say(on_device):
    data = weighted(datasets.load("digits"))
    small = make(1, data=data, class_weights=CLASS_WEIGHTS, on_device=on_device)
    images, labels, weights = next(data.train(32).as_numpy_iterator())
    assert weights.std() > 0.3
    normalized = (images - np.array(data.info.mean)) / data.info.std
    log_p = log_probabilities(make(1), normalized.astype(np.float32))
    losses = -log_p[np.arange(32), labels]
    expected = (losses * weights * 0.2 * labels).sum() / 32
    np.testing.assert_allclose(small.take(1)["loss"], expected, rtol=1e-4)


@pytest.mark.slow
def test_parts_and_replicas_add_up_weighted_losses_alike():
    options = {"data": weighted(datasets.load("digits")), "class_weights": CLASS_WEIGHTS}
    one = make(1, **options)
    # With the statistics of the global batch all see the same inputs.
    two = make(2, sync_bn=True, **options)
    np.testing.assert_allclose(two.take(2)["loss"], one.take(2)["loss"], rtol=1e-3)
    parts, replicas = make(1, gradient_accumulation_steps=2, **options), make(2, **options)
    np.testing.assert_allclose(replicas.take(2)["loss"], parts.take(2)["loss"], rtol=1e-3)


@pytest.mark.parametrize("on_device", [True, False])
def test_several_labels_are_trained_with_binary_cross_entropy(on_device):
    data = several_labels()
    small, reference = make(1, data=data, on_device=on_device), make(1, data=data)
    images, labels = next(data.train(32).as_numpy_iterator())
    normalized = ((images - np.array(data.info.mean)) / data.info.std).astype(np.float32)
    logits = reference.state.network(normalized, training=True).numpy().astype(np.float64)
    report = small.take(1)
    expected = (np.logaddexp(0, logits) - labels * logits).mean()
    np.testing.assert_allclose(report["loss"], expected, rtol=1e-4)
    right = ((logits >= 0) == labels).all(axis=1).mean()
    np.testing.assert_allclose(report["correct"], right, rtol=1e-6)


@pytest.mark.slow
def test_xla_compiles_cutmix_and_thresholds():
    options = {
        "cutmix_alpha": 1.0,
        "mixup_alpha": 0.2,
        "loss": "binary_cross_entropy",
        "bce_target_threshold": 0.2,
        "data": weighted(datasets.load("digits")),
        "class_weights": CLASS_WEIGHTS,
    }
    plain, compiled = make(1, xla="off", **options), make(1, xla="on", **options)
    (first, *others), (expected, *more) = (small.take(3)["loss"] for small in (compiled, plain))
    assert first == pytest.approx(expected, rel=1e-3)
    # BN is rounded otherwise under XLA, and training carries that on.
    np.testing.assert_allclose(others, more, rtol=1e-2)


def test_random_layers_draw_anew_at_each_step_replica_and_part():
    seeds = set()
    for replicas in (1, 2):
        step = make(replicas, gradient_accumulation_steps=2).step
        places = itertools.product(range(3), range(replicas), range(2))
        for number, replica, part in places:
            seed = step._seed(tf.constant(number, tf.int64), tf.constant(replica), part)
            seeds.add((replicas, *map(int, seed)))
    assert len(seeds) == 3 * 2 + 3 * 4


def test_randomness_is_a_function_of_seed_and_step():
    options = {"stochastic_depth_rate": 0.5, "shortcut": "dropout", "mixup_alpha": 1.0}
    first, again = make(1, **options), make(1, **options)
    assert_same({"loss": first.take(3)["loss"]}, {"loss": again.take(3)["loss"]}, rtol=1e-4, atol=0)
    other = make(1, seed=7, **options)
    assert not np.allclose(other.take(1)["loss"], make(1, **options).take(1)["loss"], rtol=1e-4)


def test_stochastic_depth_changes_the_training_loss_of_the_same_weights():
    plain, dropped = make(1), make(1, stochastic_depth_rate=0.9)
    dropped.state.rows.weights.assign(plain.state.rows.weights)
    assert abs(plain.take(1)["loss"][0] - dropped.take(1)["loss"][0]) > 1e-4
