"""Residuals that some images skip in training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.layers import ActivationOrder, NoShortcut, ResidualUnit
from keras_preact.layers.stochastic_depth import StochasticDepth

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16", "float64")


def residuals(images, dtype="float32"):
    """Images without a zero, so that each zero is a dropped residual."""
    x = np.random.default_rng(0).uniform(1, 2, size=(images, 3, 4, 5))
    return tf.constant(x, keras.DTypePolicy(dtype).compute_dtype)


def float64(x):
    return tf.cast(x, "float64").numpy()


@pytest.mark.parametrize("rate", [0.01, 0.5, 0.9])
@pytest.mark.parametrize("policy", POLICIES)
def test_its_share_of_images_is_dropped_whole_and_the_others_are_rescaled(policy, rate):
    count = 20_000
    x = residuals(count, policy)
    y = StochasticDepth(rate, dtype=policy)(x, training=True)
    assert y.dtype == x.dtype
    x, y = float64(x), float64(y)
    kept = (y != 0).mean(axis=(1, 2, 3))
    assert set(kept) == {0.0, 1.0}
    # Four standard errors of a proportion.
    assert abs(kept.mean() - (1 - rate)) < 4 * np.sqrt(rate * (1 - rate) / count)
    kept = kept == 1
    # Two roundings of bfloat16: of the factor and of the product.
    rtol = {"mixed_bfloat16": 2**-7, "mixed_float16": 2**-10}.get(policy, 1e-6)
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=rtol)


def test_the_expectation_in_training_is_the_residual():
    x = residuals(20_000)
    y = StochasticDepth(0.5)(x, training=True).numpy()
    # A kept residual is 2 x and a dropped one 0: the mean has a standard error of 0.7 %.
    np.testing.assert_allclose(y.mean(axis=0), x.numpy().mean(axis=0), rtol=0.03)


def test_inference_leaves_the_residual_as_it_is():
    x = residuals(10)
    for y in (StochasticDepth(0.5)(x), StochasticDepth(0.5)(x, training=False)):
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("xla", [False, True])
def test_compiled_steps_draw_anew_and_alike_after_the_same_seed(xla):
    x, draws = residuals(64), []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        layer = StochasticDepth(0.5)
        layer.build(x.shape)
        step = tf.function(lambda x, layer=layer: layer(x, training=True), jit_compile=xla)
        draws.append([step(x).numpy() for _ in range(2)])
    assert not np.array_equal(draws[0][0], draws[0][1])
    np.testing.assert_array_equal(draws[0], draws[1])


def images():
    return np.random.default_rng(1).normal(size=(64, 6, 7, 4)).astype("float32")


@pytest.mark.parametrize("shortcut", ["identity", "constant_scaling", "exclusive_gating"])
@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
def test_a_dropped_image_leaves_a_unit_as_its_shortcut_has_it(block, shortcut):
    filters = 1 if block == "bottleneck" else 4
    unit = ResidualUnit(filters, block=block, shortcut=shortcut, stochastic_depth_rate=0.5)
    plain = ResidualUnit(filters, block=block, shortcut=shortcut)
    for layer in (unit, plain):
        layer.build(images().shape)
    plain.set_weights(unit.get_weights())
    residual = images()
    for layer in plain.preactivation + plain.residual_function:
        residual = (
            layer(residual, training=True) if hasattr(layer, "variables") else layer(residual)
        )
    dropped = plain.shortcut(images(), np.zeros_like(images())).numpy()
    doubled = plain.shortcut(images(), 2 * residual).numpy()
    y = unit(images(), training=True).numpy()
    is_dropped, is_kept = (
        np.abs(y - expected).max(axis=(1, 2, 3)) < 1e-4 for expected in (dropped, doubled)
    )
    assert np.all(is_dropped ^ is_kept)
    assert 0 < is_dropped.sum() < 64


def test_a_dropped_image_sends_no_gradient_through_its_residual():
    # Without BN, whose statistics mix the images.
    order = ActivationOrder("relu conv", "relu conv", "relu conv")
    unit = ResidualUnit(4, order=order, stochastic_depth_rate=0.5)
    x = tf.constant(images())
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = unit(x, training=True)
    is_dropped = np.all(y == x, axis=(1, 2, 3))
    assert 0 < is_dropped.sum() < 64
    through_the_shortcut_alone = np.all(tape.gradient(y, x) == 1, axis=(1, 2, 3))
    np.testing.assert_array_equal(through_the_shortcut_alone, is_dropped)


@pytest.mark.parametrize("order", ["original", "full_preactivation"])
def test_inference_is_that_of_a_unit_without_it(order):
    unit = ResidualUnit(8, 2, order=order, stochastic_depth_rate=0.5, name="unit")
    plain = ResidualUnit(8, 2, order=order, name="unit")
    for layer in (unit, plain):
        layer.build(images().shape)
    assert [v.path for v in unit.weights] == [v.path for v in plain.weights]
    plain.set_weights(unit.get_weights())
    np.testing.assert_array_equal(unit(images()), plain(images()))
    new = {v.path for v in unit.variables} - {v.path for v in plain.variables}
    assert new == {"unit/stochastic_depth/seed/seed_generator_state"}


def test_a_rate_of_zero_adds_no_operation():
    counts = []
    for arguments in ({}, {"stochastic_depth_rate": 0.0}, {"stochastic_depth_rate": 0.5}):
        unit = ResidualUnit(4, **arguments)
        unit.build(images().shape)
        step = tf.function(lambda x, unit=unit: unit(x, training=True))
        counts.append(len(step.get_concrete_function(images()).graph.get_operations()))
    assert counts[0] == counts[1] < counts[2]


def test_a_unit_made_from_its_saved_configuration_has_the_same_rate():
    unit = ResidualUnit(4, stochastic_depth_rate=0.25)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(unit))
    assert copy.stochastic_depth_rate == 0.25
    assert copy.get_config() == unit.get_config()
    layer = StochasticDepth(0.25)
    assert StochasticDepth.from_config(layer.get_config()).rate == 0.25


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_outside_its_range_is_refused(rate):
    message = rf"rate must be at least 0 and below 1\. Received: stochastic_depth_rate={rate}"
    with pytest.raises(ValueError, match=message):
        ResidualUnit(4, stochastic_depth_rate=rate)


@pytest.mark.parametrize("shortcut", ["none", NoShortcut()])
def test_without_a_shortcut_nothing_can_be_dropped(shortcut):
    with pytest.raises(ValueError, match=r"must be 0 with shortcut='none'.*_rate=0\.1"):
        ResidualUnit(4, shortcut=shortcut, stochastic_depth_rate=0.1)
    ResidualUnit(4, shortcut=shortcut, stochastic_depth_rate=0.0)
