"""The signals inside of a residual unit, and the factors of its shortcut."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import conv2d, sigmoid

from keras_preact.layers import (
    ORDERS,
    SHORTCUTS,
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    ResidualUnit,
    Shortcut,
    ShortcutOnlyGating,
)

SHAPE = (4, 5, 6, 4)


def images(shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomized(layer, *shapes):
    """Builds the layer and gives its variables random values."""
    layer.build(*shapes)
    rng = np.random.default_rng(1)
    for variable in layer.variables:
        if variable.dtype == "float32":
            positive = variable.name in ("gamma", "moving_variance")
            draw = rng.uniform(0.5, 1.5, variable.shape) if positive else None
            variable.assign(0.3 * rng.normal(size=variable.shape) if draw is None else draw)
    return layer


def normalized(x, bn):
    axes = (0, 1, 2)
    x = (x - x.mean(axes)) / np.sqrt(x.var(axes) + 1e-5)
    return x * bn.gamma.numpy() + bn.beta.numpy()


def gate(shortcut, x):
    return sigmoid(conv2d(x, shortcut.gate_conv.kernel.numpy()) + shortcut.gate_conv.bias.numpy())


# h(x) and F as it enters the sum, by figure 2.
PARTS = [
    (Identity(), lambda s, x, f: (x, f)),
    (NoShortcut(), lambda s, x, f: (0 * x, f)),
    (ConstantScaling(0.25, 2.0), lambda s, x, f: (0.25 * x, 2.0 * f)),
    (ExclusiveGating(), lambda s, x, f: ((1 - gate(s, x)) * x, gate(s, x) * f)),
    (ShortcutOnlyGating(), lambda s, x, f: ((1 - gate(s, x)) * x, f)),
    (Convolution(), lambda s, x, f: (conv2d(x, s.conv.kernel.numpy()), f)),
    (
        Convolution(batch_norm=True),
        lambda s, x, f: (normalized(conv2d(x, s.conv.kernel.numpy()), s.bn), f),
    ),
    (Dropout(0.0), lambda s, x, f: (x, f)),
]


@pytest.mark.parametrize(("shortcut", "formula"), PARTS, ids=[type(s).__name__ for s, _ in PARTS])
def test_the_parts_are_the_two_terms_of_figure_2(shortcut, formula):
    x, residual = images(), images(seed=1)
    parts = randomized(shortcut, SHAPE, SHAPE).parts(x, residual, training=True)
    for part, expected in zip(parts, formula(shortcut, x, residual), strict=True):
        np.testing.assert_allclose(part, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("order", ORDERS)
def test_taps_are_the_signals_of_the_ordinary_call(order, shortcut, training):
    unit = randomized(ResidualUnit(4, order=order, shortcut=shortcut), SHAPE)
    x = images()
    with keras.StatelessScope():
        taps = unit(x, training=training, return_taps=True)
    with keras.StatelessScope():
        output = unit(x, training=training)
    np.testing.assert_allclose(taps.output, output, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(taps.sum, (taps.shortcut + taps.residual).numpy())
    np.testing.assert_array_equal(taps.x, x)
    if not unit.after_addition:
        assert taps.output is taps.sum
    elif training:
        bn = [layer for layer in unit.after_addition if hasattr(layer, "gamma")]
        y = normalized(taps.sum.numpy(), bn[0]) if bn else taps.sum
        np.testing.assert_allclose(taps.output, np.maximum(y, 0), rtol=1e-4, atol=1e-5)


def test_x_is_what_the_shortcut_receives_where_the_paths_have_split():
    x = images()
    first = randomized(ResidualUnit(4, first_in_network=True), SHAPE)
    taps = first(x, training=True, return_taps=True)
    activated = np.maximum(normalized(x, first.preactivation[0]), 0)
    np.testing.assert_allclose(taps.x, activated, rtol=1e-4, atol=1e-5)

    wider = randomized(ResidualUnit(8, strides=2, projection="zero_pad"), SHAPE)
    taps = wider(x, training=True, return_taps=True)
    activated = np.maximum(normalized(x, wider.preactivation[0]), 0)
    padded = np.pad(activated[:, ::2, ::2], [(0, 0)] * 3 + [(2, 2)])
    np.testing.assert_allclose(taps.x, padded, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(taps.shortcut, taps.x)


def test_the_residual_enters_the_sum_with_its_stochastic_depth():
    unit = ResidualUnit(4, stochastic_depth_rate=0.5)
    whole = ResidualUnit(4)
    shape = (64, *SHAPE[1:])
    for built in (unit, whole):
        randomized(built, shape)
    x = images(shape)
    ratio = (
        unit(x, training=True, return_taps=True).residual
        / whole(x, training=True, return_taps=True).residual
    )
    of_image = np.median(ratio, axis=(1, 2, 3))
    np.testing.assert_allclose(np.unique(of_image.round(3)), [0, 2])


@pytest.mark.parametrize(
    ("shortcut", "factor"),
    [
        (Identity(), 1.0),
        (NoShortcut(), 0.0),
        (ConstantScaling(0.25, 2.0), 0.25),
        (Dropout(0.3), 0.7),
        (Dropout(0.3, rescale=True), 1.0),
    ],
)
def test_the_factor_of_a_scaling_is_its_constant(shortcut, factor):
    value, values = shortcut.factor(images(), training=True)
    assert value == factor
    np.testing.assert_array_equal(values, [factor])


@pytest.mark.parametrize("gating", [ExclusiveGating, ShortcutOnlyGating])
def test_the_factor_of_a_gate_is_the_mean_of_1_minus_its_values(gating):
    shortcut, x = randomized(gating(), SHAPE, SHAPE), images()
    value, values = shortcut.factor(x)
    np.testing.assert_allclose(values, 1 - gate(shortcut, x), rtol=1e-5)
    np.testing.assert_allclose(value, (1 - gate(shortcut, x)).mean(), rtol=1e-5)


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("batch_norm", [None, True, False])
def test_the_factor_of_a_convolution_is_the_mean_gain_of_a_gradient(channels, batch_norm):
    # None: a bare convolution; True: by the statistics of the batch; False: the moving ones.
    shortcut = Convolution(batch_norm=batch_norm is not None)
    randomized(shortcut, SHAPE, (*SHAPE[:3], channels))
    x = images()
    matrix = shortcut.conv.kernel.numpy()[0, 0].astype("float64")
    if batch_norm is not None:
        path = x.reshape(-1, 4) @ matrix
        variance = path.var(0) if batch_norm else shortcut.bn.moving_variance.numpy()
        matrix = matrix * shortcut.bn.gamma.numpy() / np.sqrt(variance + 1e-5)
    value, values = shortcut.factor(x, training=batch_norm)
    singular = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(np.sort(values)[::-1], singular, rtol=1e-4)
    # Gradients in all directions after the convolution, and the resulting ones before it.
    after = np.random.default_rng(2).normal(size=(200_000, channels))
    gain = np.sqrt(((after @ matrix.T) ** 2).sum() / (after**2).sum())
    np.testing.assert_allclose(value, gain, rtol=0.01)


class Halving(Shortcut):
    """A shortcut of one's own that defines the sum alone."""

    def call(self, x, residual):
        return 0.5 * x + residual * x


class Doubling(Shortcut):
    """A shortcut of one's own that defines the parts alone."""

    def parts(self, x, residual, training=None):
        return 2 * x, 3 * residual


def test_a_shortcut_that_defines_the_sum_alone_has_parts():
    x, residual = images(), images(seed=1)
    shortcut, added = Halving().parts(tf.constant(x), tf.constant(residual))
    np.testing.assert_allclose(shortcut, 0.5 * x, rtol=1e-6)
    np.testing.assert_allclose(added, residual * x, rtol=1e-4, atol=1e-6)
    assert Halving().factor(x) is None


def test_a_shortcut_that_defines_the_parts_alone_has_a_sum():
    x, residual = images(), images(seed=1)
    np.testing.assert_allclose(Doubling()(x, residual), 2 * x + 3 * residual, rtol=1e-5)
    unit = randomized(ResidualUnit(4, shortcut=Doubling()), SHAPE)
    np.testing.assert_allclose(
        unit(x), unit(x, return_taps=True).output.numpy(), rtol=1e-5, atol=1e-6
    )


def test_a_shortcut_that_defines_neither_is_refused():
    class Nothing(Shortcut):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing must define call\(.*or parts\("):
        Nothing()(images(), images())
