import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_steps import assert_same, everywhere, make, weights

import keras_preact
from keras_preact.data import datasets
from keras_preact.training.distribution.compute_plan import ComputePlan
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
    with small.state.in_network() as own:
        model.set_weights(own.get_weights())
    return model


def test_a_training_step_reports_the_loss_before_the_update_and_lowers_it():
    small = make(learning_rate=0.01, on_device=False)
    images, labels = first_batch(small)
    logits = network(small)(images, training=True).numpy()
    # The same batch in every step.
    again = iter(tf.data.Dataset.from_tensors(next(small.batches)).repeat())
    reports = np.concatenate([small.step(again, step) for step in range(11)])
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
    own = everywhere(small, "non_trainable")
    assert [*own] == [variable.path for variable in reference.non_trainable_variables]
    for variable in reference.non_trainable_variables:
        [value] = own[variable.path]
        np.testing.assert_allclose(value, variable, rtol=1e-4, atol=1e-6, err_msg=variable.path)


def test_a_request_to_stop_is_reported_with_its_steps():
    small = make()
    wishes = [small.step(small.batches, 0, 1, stop) for stop in (False, True)]
    wishes.append(small.step(small.batches, 2, 2, True))
    column = REPORT.index("stop_requests")
    assert [row[column] for row in itertools.chain(*wishes)] == [0, 1, 1, 1]


@pytest.mark.parametrize("on_device", [True, False])
def test_the_bits_do_not_depend_on_the_steps_of_a_launch(on_device):
    options = {"on_device": on_device, "ema_decay": 0.9, "stochastic_depth_rate": 0.3}
    first = make(1, **options)
    reports, values = first.take(14), first.state.to_arrays(14)
    for steps in (4, 14):
        again = make(1, **options)
        rows = again.take(14, per_launch=steps)
        for name in REPORT[:-1]:
            np.testing.assert_array_equal(rows[name], reports[name], err_msg=name)
        for group, arrays in again.state.to_arrays(14).items():
            for name, value in arrays.items():
                np.testing.assert_array_equal(value, values[group][name], err_msg=name)


@pytest.mark.parametrize("replicas", [1, 2])
def test_images_on_the_devices_train_as_images_from_the_host_do(replicas):
    there, here = make(replicas, on_device=True), make(replicas, on_device=False)
    assert there.step.images is not None and here.step.images is None
    np.testing.assert_array_equal(there.take(3)["loss"], here.take(3)["loss"])
    assert_same(weights(there), weights(here), rtol=0, atol=0)


class LoopsInXLA(ComputePlan):
    xla_loops = True


@pytest.mark.slow
def test_steps_in_a_loop_that_xla_compiles_are_those_outside():
    outside, inside = make(1, xla="on"), make(1, plan_class=LoopsInXLA, xla="on")
    first, second = outside.take(3), inside.take(3, per_launch=3)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-5)
    assert_same(weights(outside), weights(inside), rtol=1e-4, atol=1e-5)
    kernels = make(1)
    np.testing.assert_allclose(first["loss"], kernels.take(3)["loss"], rtol=1e-3)


def test_a_launch_that_fails_at_a_batch_has_taken_the_steps_before_it():
    whole, broken = make(1, on_device=False), make(1, on_device=False)
    batches = datasets.load("digits").train(32, seed=broken.config.seed).take(3)
    with pytest.raises(tf.errors.OutOfRangeError):
        broken.step(iter(batches), 0, 5)
    rows = broken.step.completed()
    assert rows.shape == (3, len(REPORT))
    np.testing.assert_array_equal(rows[:, 0], whole.take(3)["loss"])
    assert_same(weights(whole), weights(broken), rtol=0, atol=0)


@pytest.mark.parametrize(
    "options",
    [{"remat": "unit"}, {"remat": "group", "remat_units": 2}, {"remat": "auto"}],
    ids=lambda options: options["remat"],
)
def test_recomputation_changes_no_bit_of_a_run(options):
    options = {"depth": 26, "shortcut": "dropout", "stochastic_depth_rate": 0.2, **options}
    plain = make(1, **{**options, "remat": "none", "remat_units": None, "unit_loops": "off"})
    again = make(1, **options)
    assert not plain.state.function.stacks and again.state.function.stacks
    first, second = plain.take(3), again.take(3)
    np.testing.assert_array_equal(second["loss"], first["loss"])
    assert_same(weights(plain), weights(again), rtol=1e-6, atol=1e-7)


def test_a_run_saved_with_loops_goes_on_without_them():
    looped, plain = (make(1, depth=26, unit_loops=loops) for loops in ("on", "off"))
    looped.take(2)
    plain.state.from_arrays(looped.state.to_arrays(2))
    plain.done = 2
    if plain.step.takes_draws:
        plain.batches.take(2)
    assert_same(weights(looped), weights(plain), rtol=0, atol=0)
    first, second = looped.take(2), plain.take(2)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-6)
