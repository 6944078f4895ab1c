import itertools

import keras
import numpy as np
import tensorflow as tf
from small_steps import make, weights

import keras_preact
from keras_preact.data import datasets
from keras_preact.training.steps.train_step import REPORT


def cross_entropy(logits, labels):
    """Returns the cross-entropy of each image, in NumPy and float64."""
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -log_probabilities[np.arange(len(labels)), labels]


def first_batch(small):
    """The batch of the first step: normalized images and labels, in NumPy."""
    data = datasets.load("digits")
    size, seed = small.config.global_batch_size, small.config.seed
    images, labels = next(data.train(size, seed=seed).as_numpy_iterator())
    normalized = (images.astype(np.float64) - data.info.mean) / data.info.std
    return normalized.astype(np.float32), labels


def network(small):
    """The same network with the same weights, as a user would call it."""
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 1))
    model.set_weights(small.state.model.get_weights())
    return model


def test_a_training_step_reports_the_loss_before_the_update_and_lowers_it():
    small = make(learning_rate=0.01)
    images, labels = first_batch(small)
    logits = network(small)(images, training=True).numpy()
    # The same batch in every step.
    again = iter(tf.data.Dataset.from_tensors(next(small.batches)).repeat())
    reports = np.concatenate([small.step(again).numpy() for _ in range(11)])
    first = dict(zip(REPORT, reports[0], strict=True))
    np.testing.assert_allclose(first["loss"], cross_entropy(logits, labels).mean(), rtol=1e-4)
    right = (logits.argmax(axis=1) == labels).mean()
    np.testing.assert_allclose(first["correct"], right, rtol=1e-6)
    assert (first["applied"], first["loss_scale"], first["stop_requests"]) == (1, 1, 0)
    assert reports[-1][0] < first["loss"]


def test_a_step_moves_the_weights_and_statistics_as_gradient_descent_does():
    small = make(learning_rate=0.01, momentum=0.0, weight_decay=0.0)
    images, labels = first_batch(small)
    before = weights(small)
    reference = network(small)
    with tf.GradientTape() as tape:
        logits = reference(images, training=True)
        losses = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)
    gradients = tape.gradient(losses, [v.value for v in reference.trainable_variables])
    report = small.take()
    norm = np.sqrt(sum(np.sum(np.float64(gradient) ** 2) for gradient in gradients))
    np.testing.assert_allclose(report["gradient_norm"], norm, rtol=1e-4)
    for (path, value), gradient in zip(before.items(), gradients, strict=True):
        expected = value - 0.01 * gradient
        np.testing.assert_allclose(weights(small)[path], expected, atol=1e-5, err_msg=path)
    own, others = (m.non_trainable_variables for m in (small.state.model, reference))
    for variable, other in zip(own, others, strict=True):
        np.testing.assert_allclose(variable, other, rtol=1e-4, atol=1e-6, err_msg=variable.path)
    assert int(small.state.optimizer.iterations) == 1


def test_a_request_to_stop_is_reported_with_its_steps():
    small = make()
    wishes = [small.step(small.batches, 1, stop).numpy() for stop in (False, True)]
    wishes.append(small.step(small.batches, 2, True).numpy())
    column = REPORT.index("stop_requests")
    assert [row[column] for row in itertools.chain(*wishes)] == [0, 1, 1, 1]
