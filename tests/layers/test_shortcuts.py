"""The shortcuts against their formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import conv2d, sigmoid

from keras_preact.layers import (
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    ShortcutOnlyGating,
    shortcuts,
)

SHAPE = (2, 5, 6, 4)


def signal_and_residual(shape=SHAPE):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype("float32") for _ in range(2)]


def randomized(shortcut):
    """Builds the shortcut and gives its variables random values."""
    shortcut.build(SHAPE, SHAPE)
    rng = np.random.default_rng(1)
    for variable in shortcut.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return shortcut


def gate(shortcut, x):
    return sigmoid(conv2d(x, shortcut.gate_conv.kernel.numpy()) + shortcut.gate_conv.bias.numpy())


# Figure 2, in the order of table 1.
FORMULAS = [
    (Identity(), lambda s, x, f: x + f),
    (NoShortcut(), lambda s, x, f: f),
    (ConstantScaling(), lambda s, x, f: 0.5 * x + 0.5 * f),
    (ConstantScaling(0.25, 2.0), lambda s, x, f: 0.25 * x + 2.0 * f),
    (ExclusiveGating(), lambda s, x, f: (1 - gate(s, x)) * x + gate(s, x) * f),
    (ShortcutOnlyGating(), lambda s, x, f: (1 - gate(s, x)) * x + f),
    (Convolution(), lambda s, x, f: conv2d(x, s.conv.kernel.numpy()) + f),
]


@pytest.mark.parametrize(
    ("template", "formula"), FORMULAS, ids=[type(template).__name__ for template, _ in FORMULAS]
)
def test_the_sum_follows_the_formula_of_figure_2(template, formula):
    shortcut = randomized(shortcuts.get(template))
    x, residual = signal_and_residual()
    for training in (True, False):
        y = shortcut(x, residual, training=training)
        expected = formula(shortcut, x, residual)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert shortcut.compute_output_shape(x.shape, residual.shape) == y.shape


def test_the_convolution_is_followed_by_batch_norm_only_on_request():
    shortcut = randomized(Convolution(batch_norm=True))
    x, residual = signal_and_residual()
    path = conv2d(x, shortcut.conv.kernel.numpy())
    gamma, beta = shortcut.bn.gamma.numpy(), shortcut.bn.beta.numpy()
    inferred = path / np.sqrt(1 + 1e-5) * gamma + beta + residual
    np.testing.assert_allclose(shortcut(x, residual), inferred, rtol=1e-4, atol=1e-5)
    axes = (0, 1, 2)
    normalized = (path - path.mean(axes)) / np.sqrt(path.var(axes) + 1e-5)
    trained = normalized * gamma + beta + residual
    np.testing.assert_allclose(shortcut(x, residual, training=True), trained, rtol=1e-4, atol=1e-5)
    assert randomized(Convolution()).bn is None


def test_constant_scaling_by_one_and_one_is_the_identity():
    x, residual = signal_and_residual()
    np.testing.assert_array_equal(
        ConstantScaling(1.0, 1.0)(x, residual), Identity()(x, residual).numpy()
    )


def test_a_shortcut_only_gate_with_bias_minus_20_is_the_identity():
    # sigmoid(-20) is 2e-9: the gate is shut whatever its small weights make of x.
    x, residual = signal_and_residual()
    y = ShortcutOnlyGating(initial_bias=-20.0)(x, residual)
    np.testing.assert_allclose(y, x + residual, atol=1e-6)


def test_an_exclusive_gate_with_bias_minus_20_returns_the_signal_alone():
    x, residual = signal_and_residual()
    y = ExclusiveGating(initial_bias=-20.0)(x, residual)
    np.testing.assert_allclose(y, x, atol=1e-6)


@pytest.mark.parametrize("gating", [ExclusiveGating, ShortcutOnlyGating])
def test_a_gate_starts_at_the_sigmoid_of_its_bias_on_a_black_image(gating):
    x = np.zeros(SHAPE, "float32")
    for shortcut, bias in ((gating(), -6.0), (gating(initial_bias=-2.5), -2.5)):
        shortcut.build(SHAPE, SHAPE)
        np.testing.assert_allclose(shortcut.gate(x), np.full(SHAPE, sigmoid(bias)), rtol=1e-5)


@pytest.mark.parametrize("gating", [ExclusiveGating, ShortcutOnlyGating])
def test_in_bfloat16_a_small_gate_shrinks_the_signal_by_its_own_size_on_average(gating):
    # sigmoid(-6) is 0.0025. In bfloat16, 1 - 0.0025 rounds to 0.9961, as if the gate were
    # 0.0039; over all the 128 numbers from 1 to 2 the roundings of x - g * x even out.
    x = (1 + np.arange(128, dtype="float32") / 128).reshape(1, 1, 128, 1)
    residual = np.zeros_like(x)
    shortcut = gating(dtype="mixed_bfloat16")
    shortcut.build(x.shape, x.shape)
    shortcut.gate_conv.kernel.assign(np.zeros((1, 1, 1, 1)))
    y = shortcut(x, residual)
    assert y.dtype == "bfloat16"
    shrinkage = 1 - tf.cast(y, "float64").numpy().sum() / x.sum()
    np.testing.assert_allclose(shrinkage, sigmoid(-6.0), rtol=0.25)


@pytest.mark.parametrize(("rescale", "kept_factor"), [(False, 1.0), (True, 1 / 0.7)])
def test_dropout_zeroes_its_rate_of_the_signal_and_rescales_only_on_request(rescale, kept_factor):
    x = np.random.default_rng(0).uniform(1, 2, size=(4, 32, 32, 16)).astype("float32")
    residual = np.full_like(x, 3.0)
    path = Dropout(rate=0.3, rescale=rescale)(x, residual, training=True) - residual
    kept = np.asarray(path) != 0
    # Four standard errors of a proportion.
    assert abs(kept.mean() - 0.7) < 4 * np.sqrt(0.3 * 0.7 / x.size)
    np.testing.assert_allclose(path[kept], kept_factor * x[kept], rtol=1e-5)


@pytest.mark.parametrize(("rescale", "factor"), [(False, 0.7), (True, 1.0)])
def test_dropout_at_inference_scales_the_signal_by_its_expectation_in_training(rescale, factor):
    x, residual = signal_and_residual((4, 32, 32, 16))
    x = np.abs(x)
    dropout = Dropout(rate=0.3, rescale=rescale)
    np.testing.assert_allclose(dropout(x, residual), factor * x + residual, rtol=1e-5, atol=1e-6)
    trained = np.asarray(dropout(x, residual, training=True)) - residual
    np.testing.assert_allclose(trained.mean() / x.mean(), factor, rtol=0.02)


def test_dropout_draws_anew_at_every_call_and_alike_after_the_same_seed():
    x, residual = signal_and_residual()
    draws = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        dropout = Dropout()
        draws.append([dropout(x, residual, training=True).numpy() for _ in range(2)])
    assert not np.array_equal(draws[0][0], draws[0][1])
    np.testing.assert_array_equal(draws[0], draws[1])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_dropout_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match=f"rate must be .* Received: rate={rate}"):
        Dropout(rate=rate)
