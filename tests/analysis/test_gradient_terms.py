"""The two terms of the gradient against products of Jacobians, and equation (8)."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_chains import chain_of_units, norms, one_tape, sample

from keras_preact import analysis
from keras_preact.layers import ActivationOrder, ConstantScaling, Dropout, ResidualUnit

SHAPE = (6, 6, 4)
TINY = (2, 2, 2)
LINEAR = ActivationOrder("conv", "conv", "conv")


def units_of(model):
    return [layer for layer in model.layers if isinstance(layer, ResidualUnit)]


def taps_of_units(model, images):
    x, taps = images, []
    for unit in units_of(model):
        with keras.StatelessScope():
            taps.append(unit(x, training=True, return_taps=True))
        x = taps[-1].output
    return taps


def jacobians(unit, x):
    """(matrices of h, F and f, output of the unit): h and F by its input, f by the sum."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        taps = unit(x, training=True, return_taps=True)
    size = x.numpy().size

    def matrix(signal, source):
        # pfor would take seconds to vectorize.
        options = {"unconnected_gradients": "zero", "experimental_use_pfor": False}
        return tape.jacobian(signal, source, **options).numpy().reshape(-1, size)

    f = np.eye(size) if taps.output is taps.sum else matrix(taps.output, taps.sum)
    h = np.eye(size) if taps.shortcut is x else matrix(taps.shortcut, x)
    return (h, matrix(taps.residual, x), f), taps.output


@pytest.mark.parametrize(
    ("order", "shortcut"),
    [
        ("original", "identity"),
        ("original", "exclusive_gating"),
        ("original", "convolution"),
        ("bn_after_addition", "identity"),
        ("bn_after_addition", "shortcut_only_gating"),
        ("full_preactivation", "identity"),
        ("full_preactivation", "exclusive_gating"),
        ("full_preactivation", "shortcut_only_gating"),
        ("full_preactivation", "convolution"),
    ],
)
def test_the_terms_are_products_of_jacobians(order, shortcut):
    keras.config.set_dtype_policy("float64")
    model = chain_of_units(3, TINY, order=order, shortcut=shortcut)
    images, labels = sample(TINY, batch=2)
    measured = analysis.backward(model, images.astype("float64"), labels)

    x, matrices = tf.constant(images, tf.float64), []
    for unit in units_of(model):
        of_unit, x = jacobians(unit, x)
        matrices.append(of_unit)
    _, (*_, last) = one_tape(model, images.astype("float64"), labels)
    # Equation (5) with h and f: the product of f'h' alone, and of f'(h' + F') less that.
    shortcut_term = gradient = last.ravel()
    rows = []
    for h, residual, f in matrices[::-1]:
        shortcut_term, gradient = (f @ h).T @ shortcut_term, (f @ (h + residual)).T @ gradient
        rest = gradient - shortcut_term
        sizes = norms([gradient, shortcut_term, rest])
        rows.append((*sizes, shortcut_term @ rest / sizes[1] / sizes[2]))
    found = (
        measured.gradient_norm,
        measured.shortcut_norm,
        measured.residual_norm,
        measured.cosine,
    )
    np.testing.assert_allclose(np.transpose(found), rows[::-1], rtol=1e-8)


@pytest.mark.parametrize("scale", [0.5, 1.1])
def test_a_constant_scaling_multiplies_the_gradient_once_for_each_unit(scale):
    count = 12
    model = chain_of_units(count, SHAPE, shortcut=ConstantScaling(scale, 1.0))
    measured = analysis.backward(model, *sample(SHAPE))
    expected = scale ** np.arange(count, 0.0, -1)
    np.testing.assert_allclose(measured.shortcut_factor, scale, rtol=1e-7)
    np.testing.assert_allclose(measured.shortcut_product, expected, rtol=1e-6)
    ratio = measured.shortcut_norm / measured.output_gradient_norm
    np.testing.assert_allclose(ratio, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("shortcut", "factor"),
    [("identity", 1), ("none", 0), (Dropout(0.3), 0.7), (Dropout(0.3, rescale=True), 1)],
)
def test_the_product_of_a_constant_factor_is_its_power(shortcut, factor):
    model = chain_of_units(5, SHAPE, shortcut=shortcut)
    measured = analysis.backward(model, *sample(SHAPE))
    expected = float(factor) ** np.arange(5, 0, -1)
    np.testing.assert_allclose(measured.shortcut_product, expected, rtol=1e-6)
    if shortcut in ("identity", "none"):
        ratio = measured.shortcut_norm / measured.output_gradient_norm
        np.testing.assert_allclose(ratio, expected, rtol=1e-6)
        assert np.isnan(measured.cosine).all() == (shortcut == "none")


def test_dropout_lets_its_share_of_the_gradient_through():
    rate, shape, count = 0.3, (16, 16, 16), 2
    model = chain_of_units(count, shape, shortcut=Dropout(rate), order="relu_before_addition")
    images, labels = sample(shape)
    measured = analysis.backward(model, images, labels)
    # Each element is 0 or 1 / (1 - rate), times 1 - rate: its square has the mean 1 - rate.
    kept = (measured.shortcut_norm / measured.output_gradient_norm) ** 2
    error = 5 * np.sqrt(rate / (1 - rate) / images.size)
    np.testing.assert_allclose(kept, [(1 - rate) ** 2, 1 - rate], rtol=2 * error)


@pytest.mark.parametrize("gating", ["exclusive_gating", "shortcut_only_gating"])
def test_the_factor_of_a_gate_is_the_mean_of_1_minus_the_gate(gating):
    model = chain_of_units(3, SHAPE, shortcut=gating)
    rng = np.random.default_rng(3)
    for unit in units_of(model):
        unit.shortcut.gate_conv.bias.assign(rng.normal(size=4))
    images, labels = sample(SHAPE)
    measured = analysis.backward(model, images, labels)
    means = []
    for unit, taps, values in zip(
        units_of(model), taps_of_units(model, images), measured.factor_values, strict=True
    ):
        conv = unit.shortcut.gate_conv
        x = np.asarray(taps.x, "float64")
        inner = x @ np.asarray(conv.kernel)[0, 0] + np.asarray(conv.bias)
        kept = 1 - 1 / (1 + np.exp(-inner))
        means.append(kept.mean())
        np.testing.assert_allclose(np.sort(values), np.sort(kept.ravel()), rtol=1e-4)
    np.testing.assert_allclose(measured.shortcut_factor, means, rtol=1e-5)
    np.testing.assert_allclose(measured.shortcut_product, np.cumprod(means[::-1])[::-1], rtol=1e-5)


def test_values_of_many_pixels_are_drawn_from_all_channels_and_pixels():
    shape = (16, 16, 16)
    model = chain_of_units(1, shape, shortcut="shortcut_only_gating")
    bias = np.linspace(-3, 3, 16)
    model.get_layer("unit1").shortcut.gate_conv.bias.assign(bias)
    measured = analysis.backward(model, *sample(shape, batch=8))
    values = measured.factor_values[0]
    assert values.size <= 4096
    # Within five standard errors of the mean of them all.
    error = 5 * values.std() / np.sqrt(values.size)
    np.testing.assert_allclose(values.mean(), measured.shortcut_factor[0], atol=error)


def test_the_values_of_a_convolution_are_its_singular_values():
    model = chain_of_units(3, SHAPE, shortcut="convolution")
    measured = analysis.backward(model, *sample(SHAPE))
    for unit, factor, values in zip(
        units_of(model), measured.shortcut_factor, measured.factor_values, strict=True
    ):
        kernel = np.asarray(unit.shortcut.conv.kernel)[0, 0]
        expected = np.linalg.svd(kernel, compute_uv=False)
        np.testing.assert_allclose(np.sort(values)[::-1], expected, rtol=1e-4)
        np.testing.assert_allclose(factor, np.sqrt((expected**2).mean()), rtol=1e-5)


def test_a_term_far_below_the_range_of_float32_is_followed():
    count = 54
    shortcut = ConstantScaling(1e-3, 1.0)
    model = chain_of_units(count, (4, 4, 4), block="single", shortcut=shortcut)
    measured = analysis.backward(model, *sample((4, 4, 4)))
    ratio = measured.shortcut_norm / measured.output_gradient_norm
    expected = -3.0 * np.arange(count, 0, -1)
    np.testing.assert_allclose(np.log10(ratio), expected, rtol=1e-6)
    np.testing.assert_allclose(np.log10(measured.shortcut_product), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
@pytest.mark.parametrize("shortcut", ["none", ConstantScaling(0.0, 0.1)])
def test_without_shortcuts_a_vanishing_gradient_is_followed(dtype, shortcut):
    # Without BN each unit makes the gradient smaller, until it does not fit half precision.
    keras.config.set_dtype_policy(dtype)
    model = chain_of_units(12, SHAPE, block="single", shortcut=shortcut, order=LINEAR)
    for unit in units_of(model):
        kernel = next(v for v in unit.trainable_variables if v.name == "kernel")
        kernel.assign(0.1 * np.asarray(kernel))
    images, labels = sample(SHAPE)
    measured = analysis.backward(
        model, images.astype(model.get_layer("unit1").compute_dtype), labels
    )
    np.testing.assert_allclose(measured.residual_norm, measured.gradient_norm, rtol=1e-6)
    np.testing.assert_array_equal(measured.shortcut_norm, 0)
    assert 0 < measured.gradient_norm[0] < 1e-8 * measured.output_gradient_norm
    assert np.isfinite([measured.gradient_norm, measured.split_error]).all()


def test_float16_holds_the_terms_of_a_constant_scaling():
    keras.config.set_dtype_policy("mixed_float16")
    count = 12
    model = chain_of_units(count, SHAPE, shortcut=ConstantScaling(1e-3, 1.0))
    images, labels = sample(SHAPE)
    measured = analysis.backward(model, images.astype("float16"), labels)
    ratio = measured.shortcut_norm / measured.output_gradient_norm
    np.testing.assert_allclose(np.log10(ratio), -3.0 * np.arange(count, 0, -1), rtol=1e-2)
    assert np.isfinite([measured.gradient_norm, measured.residual_norm]).all()
