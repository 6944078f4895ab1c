"""The signals of all units against NumPy: moments, truncation, and the sum of equation (4)."""

import keras
import numpy as np
import pytest
from numpy_net import Net
from tiny_chains import chain_of_units, norms, sample, three_stages

from keras_preact import analysis
from keras_preact.layers import ConstantScaling, ResidualUnit

SHAPE = (6, 6, 4)
IDENTITY_F = ("full_preactivation", "relu_before_addition", "relu_only_preactivation")
SIGNALS = ("shortcut", "residual", "sum", "output")


def taps_of_units(model, images):
    """The taps of each unit by eager calls of the layers, and the inputs of the units."""
    x, inputs, taps = images, [], []
    with keras.StatelessScope():
        for layer in model.layers[1:]:
            if isinstance(layer, ResidualUnit):
                inputs.append(np.asarray(x))
                taps.append(layer(x, training=True, return_taps=True))
                x = taps[-1].output
            else:
                x = layer(x, training=True)
    return inputs, taps


def check_moments(moments, signals, **tolerance):
    signals = [np.asarray(signal) for signal in signals]
    exact = [signal.astype("float64") for signal in signals]
    np.testing.assert_allclose(moments.mean, [s.mean() for s in exact], **tolerance)
    np.testing.assert_allclose(moments.variance, [s.var() for s in exact], **tolerance)
    zeros = [np.mean(signal == 0) for signal in signals]
    np.testing.assert_allclose(moments.zero_fraction, zeros, rtol=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
def test_the_signals_are_those_of_a_network_in_numpy(dtype, tolerance):
    keras.config.set_dtype_policy(dtype)
    model = chain_of_units(3, SHAPE)
    images = sample(SHAPE, batch=3)[0].astype(dtype)
    measured = analysis.forward(model, images)
    inputs, residuals = Net(model).forward(images)
    options = {"rtol": tolerance, "atol": tolerance}
    check_moments(measured, inputs[:-1], **options)
    check_moments(measured.residual, residuals, **options)
    for same in (measured.sum, measured.output):
        check_moments(same, inputs[1:], **options)
    check_moments(measured.shortcut, inputs[:-1], **options)


@pytest.mark.parametrize("order", ["original", "bn_after_addition", "relu_before_addition"])
def test_every_signal_is_measured_over_all_its_elements(order):
    model = three_stages("basic", 2, unit=order, shortcut="shortcut_only_gating")
    images = sample()[0]
    inputs, taps = taps_of_units(model, images)
    measured = analysis.forward(model, images)
    check_moments(measured, inputs, rtol=1e-5, atol=1e-6)
    for name in SIGNALS:
        signals = [getattr(tap, name) for tap in taps]
        check_moments(getattr(measured, name), signals, rtol=1e-5, atol=1e-6)
    pairs = [(tap.sum.numpy(), tap.output.numpy()) for tap in taps]
    truncated = [np.mean((y != 0) & (output == 0)) for y, output in pairs]
    np.testing.assert_allclose(measured.truncated_fraction, truncated, rtol=1e-12)
    # Without zeros, a share of zeros that is always 0 would go unnoticed.
    assert max(measured.output.zero_fraction.max(), measured.residual.zero_fraction.max()) > 0.1


def test_nothing_is_truncated_where_f_is_the_identity():
    measured = analysis.forward(three_stages("basic", 2), sample()[0])
    np.testing.assert_array_equal(measured.truncated_fraction, 0)
    np.testing.assert_array_equal(measured.stages, [1, 1, 2, 2, 3, 3])
    assert measured.units[2:4] == ("stage2_unit1", "stage2_unit2")


def rounding(inputs, taps):
    """A bound of the rounding of equation (4) at each unit, relative to x_L.

    An addition rounds each element by 2**-24 of the sum at most. From unit l on those are the
    additions of the units, as many to sum the residuals up again, and two subtractions.
    """
    last = taps[-1].output.numpy()
    bounds, total, summed = [], 0.0, 0.0
    for x, tap in zip(inputs[::-1], taps[::-1], strict=True):
        summed = summed + np.asarray(tap.residual)
        total += np.linalg.norm(tap.sum) + np.linalg.norm(summed)
        ends = np.linalg.norm(last - x) + np.linalg.norm(last - x - summed)
        bounds.append(2.0**-24 * (total + ends) / np.linalg.norm(last))
    return np.array(bounds[::-1])


@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
@pytest.mark.parametrize("order", IDENTITY_F)
def test_with_identities_a_signal_is_the_first_plus_all_residuals(order, block):
    model = chain_of_units(6, SHAPE, top=False, order=order, block=block)
    images = sample(SHAPE)[0]
    measured = analysis.forward(model, images)
    bound = rounding(*taps_of_units(model, images))
    assert (measured.sum_error <= bound).all() and bound.max() < 5e-6
    for part in (measured.sum_error_of_f, measured.sum_error_of_h):
        np.testing.assert_array_equal(part, 0)


@pytest.mark.parametrize("projection", ["convolution", "zero_pad"])
@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
def test_the_sum_starts_anew_in_each_stage_from_what_the_projection_makes(block, projection):
    measured = analysis.forward(three_stages(block, 3, projection=projection), sample()[0])
    np.testing.assert_array_less(measured.sum_error, 1e-6)


@pytest.mark.parametrize(
    ("order", "shortcut"),
    [
        ("original", "identity"),
        ("bn_after_addition", "identity"),
        ("full_preactivation", "constant_scaling"),
        ("full_preactivation", "exclusive_gating"),
        ("full_preactivation", "convolution"),
        ("full_preactivation", "none"),
        ("original", "shortcut_only_gating"),
        ("bn_after_addition", "dropout"),
    ],
)
def test_what_the_sum_misses_is_what_f_and_h_add(order, shortcut):
    model = three_stages("basic", 2, unit=order, shortcut=shortcut)
    images = sample()[0]
    measured = analysis.forward(model, images)
    taps = taps_of_units(model, images)[1]
    exact = [[np.asarray(signal, "float64") for signal in tap[:5]] for tap in taps]
    for first in range(6):
        stage = exact[first : 2 * (first // 2) + 2]
        last = stage[-1][4]
        # A convolution on the shortcut that changes dimensions is no deviation of h.
        start, h = stage[0][:2]
        start = h if start.shape != h.shape else start
        missed = last - start - sum(residual for _, _, residual, _, _ in stage)
        of_f = sum(output - y for *_, y, output in stage)
        starts = [start, *(x for x, *_ in stage[1:])]
        of_h = sum(h - x for x, (_, h, *_) in zip(starts, stage, strict=True))
        expected = norms([missed, of_f, of_h]) / np.linalg.norm(last)
        errors = (measured.sum_error, measured.sum_error_of_f, measured.sum_error_of_h)
        np.testing.assert_allclose([e[first] for e in errors], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(missed, of_f + of_h, atol=1e-5)
    assert measured.sum_error.max() > 0.01


@pytest.mark.parametrize(
    ("order", "shortcut", "part"),
    [("original", "identity", "f"), ("full_preactivation", ConstantScaling(0.7, 1.0), "h")],
)
def test_where_one_of_f_and_h_deviates_it_makes_the_whole_error(order, shortcut, part):
    measured = analysis.forward(three_stages(units=2, unit=order, shortcut=shortcut), sample()[0])
    parts = {"f": measured.sum_error_of_f, "h": measured.sum_error_of_h}
    np.testing.assert_allclose(measured.sum_error, parts.pop(part), rtol=1e-5)
    np.testing.assert_array_equal(*parts.values(), 0)


def test_inference_normalizes_by_the_moving_statistics():
    model = chain_of_units(2, SHAPE)
    images = sample(SHAPE)[0]
    first = model.get_layer("unit1")
    expected = np.asarray(first(images, training=False))
    measured = analysis.forward(model, images, training=False)
    np.testing.assert_allclose(measured.output.variance[0], expected.var(), rtol=1e-5)
    trained = analysis.forward(model, images).output.variance[0]
    assert abs(trained / expected.var() - 1) > 0.01
