"""Residual units of every order against the published figure, computed in NumPy."""

import keras
import numpy as np
import pytest
from reference import conv2d

from keras_preact.layers import ResidualUnit

# Figure 4 written out for units of one, two and three convolutions. "|" is where the shortcut
# of the very first unit, and of units that change dimensions, leaves; "+" is the addition.
PUBLISHED = {
    ("original", "single"): "| conv1 bn1 + relu",
    ("original", "basic"): "| conv1 bn1 relu conv2 bn2 + relu",
    ("original", "bottleneck"): "| conv1 bn1 relu conv2 bn2 relu conv3 bn3 + relu",
    ("bn_after_addition", "single"): "| conv1 + addition_bn relu",
    ("bn_after_addition", "basic"): "| conv1 bn1 relu conv2 + addition_bn relu",
    ("bn_after_addition", "bottleneck"): (
        "| conv1 bn1 relu conv2 bn2 relu conv3 + addition_bn relu"
    ),
    ("relu_before_addition", "single"): "| conv1 bn1 relu +",
    ("relu_before_addition", "basic"): "| conv1 bn1 relu conv2 bn2 relu +",
    ("relu_before_addition", "bottleneck"): "| conv1 bn1 relu conv2 bn2 relu conv3 bn3 relu +",
    ("relu_only_preactivation", "single"): "relu | conv1 bn1 +",
    ("relu_only_preactivation", "basic"): "relu | conv1 bn1 relu conv2 bn2 +",
    ("relu_only_preactivation", "bottleneck"): "relu | conv1 bn1 relu conv2 bn2 relu conv3 bn3 +",
    ("full_preactivation", "single"): "preact_bn relu | conv1 +",
    ("full_preactivation", "basic"): "preact_bn relu | conv1 bn2 relu conv2 +",
    ("full_preactivation", "bottleneck"): "preact_bn relu | conv1 bn2 relu conv2 bn3 relu conv3 +",
}
# Orders whose last convolution has BN have it on the projection too.
NORMALIZED_PROJECTIONS = ("original", "relu_before_addition", "relu_only_preactivation")

INPUT_CHANNELS = 8
# Output channels and further arguments.
CASES = {
    "keeps_dimensions": {"channels": INPUT_CHANNELS},
    "first_in_network": {"channels": INPUT_CHANNELS, "first_in_network": True},
    "widens": {"channels": 12},
    "halves": {"channels": 16, "strides": 2},
    "halves_in_the_second_convolution": {"channels": 16, "strides": 2, "strided_convolution": 2},
    "halves_and_zero_pads": {"channels": 12, "strides": 2, "projection": "zero_pad"},
    "zero_pads": {"channels": 12, "projection": "zero_pad"},
}


class Reference:
    """A unit in NumPy: runs a program of `PUBLISHED` on variables by name."""

    def __init__(self, program, order, variables, strides=1, strided_convolution=1):
        self.program, self.order, self.variables = program.split(), order, dict(variables)
        self.strides, self.strided = strides, f"conv{strided_convolution}"

    def __call__(self, x, channels, training, projection="convolution", first_in_network=False):
        changes = self.strides > 1 or channels != x.shape[-1]
        shortcut = x
        for word in self.program:
            if word == "|":
                shortcut = x if changes or first_in_network else shortcut
            elif word == "+":
                x = x + self.match(shortcut, channels, training, projection, changes)
            elif word == "relu":
                x = np.maximum(x, 0)
            elif word.startswith("conv"):
                strides = self.strides if word == self.strided else 1
                x = conv2d(x, self.variables[f"{word}/kernel"], strides)
            else:
                x = self.batch_norm(word, x, training)
        return x

    def match(self, x, channels, training, projection, changes):
        if not changes:
            return x
        if projection == "zero_pad":
            new = channels - x.shape[-1]
            x = x[:, :: self.strides, :: self.strides]
            return np.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))
        x = conv2d(x, self.variables["projection_conv/kernel"], self.strides)
        normalized = self.order in NORMALIZED_PROJECTIONS
        return self.batch_norm("projection_bn", x, training) if normalized else x

    def batch_norm(self, name, x, training):
        moving = [f"{name}/moving_mean", f"{name}/moving_variance"]
        mean, variance = (self.variables[key] for key in moving)
        if training:
            old = mean, variance
            mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
            for key, before, batch in zip(moving, old, (mean, variance), strict=True):
                self.variables[key] = 0.9 * before + 0.1 * batch
        normalized = (x - mean) / np.sqrt(variance + 1e-5)
        return normalized * self.variables[f"{name}/gamma"] + self.variables[f"{name}/beta"]


def images():
    return np.random.default_rng(0).normal(size=(3, 6, 7, INPUT_CHANNELS)).astype("float32")


def randomized(unit, seed=1):
    """Builds the unit and gives every variable a value far from its initial one."""
    unit.build((None, 6, 7, INPUT_CHANNELS))
    rng = np.random.default_rng(seed)
    for variable in unit.variables:
        positive = variable.path.endswith(("gamma", "moving_variance"))
        value = rng.uniform(0.5, 2, variable.shape) if positive else rng.normal(size=variable.shape)
        variable.assign(0.3 * value if variable.path.endswith("kernel") else value)
    return unit


def variables(unit):
    """Values by names such as conv1/kernel."""
    return {v.path.partition("/")[2]: v.numpy().astype("float64") for v in unit.variables}


def make(block, *, channels, **arguments):
    return ResidualUnit(
        channels // 4 if block == "bottleneck" else channels, block=block, **arguments
    )


CASES_OF_UNITS = [
    (order, block, case)
    for order, block in PUBLISHED
    for case in CASES
    # A one-layer unit has no second convolution.
    if (block, case) != ("single", "halves_in_the_second_convolution")
]


@pytest.mark.parametrize(("order", "block", "case"), CASES_OF_UNITS)
def test_outputs_and_statistics_equal_the_published_unit_in_numpy(order, block, case):
    arguments = dict(CASES[case])
    unit = randomized(make(block, order=order, **arguments))
    strided = {key: arguments.pop(key, 1) for key in ("strides", "strided_convolution")}
    reference = Reference(PUBLISHED[order, block], order, variables(unit), **strided)
    x = images()
    for training in (False, True):
        expected = reference(x.astype("float64"), training=training, **arguments)
        y = unit(x, training=training)
        assert unit.compute_output_shape(x.shape) == y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    for name, value in variables(unit).items():
        np.testing.assert_allclose(
            value, reference.variables[name], rtol=1e-4, atol=1e-4, err_msg=name
        )


@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
def test_with_the_last_convolution_zeroed_a_full_preactivation_unit_is_the_identity(block):
    unit = randomized(make(block, channels=INPUT_CHANNELS))
    last = {"single": "conv1", "basic": "conv2", "bottleneck": "conv3"}[block]
    (kernel,) = (v for v in unit.variables if v.path.endswith(f"{last}/kernel"))
    kernel.assign(np.zeros(kernel.shape))
    for training in (True, False):
        np.testing.assert_array_equal(unit(images(), training=training), images())


@pytest.mark.parametrize("training", [True, False])
def test_an_asymmetric_activation_after_the_addition_equals_preactivation(training):
    # Equations (9) and (10), section 4.1: the BN and ReLU of unit l + 1 may as well stand after
    # the addition of unit l, as long as only the residual path of unit l + 1 receives them.
    units = [randomized(make("basic", channels=INPUT_CHANNELS), seed) for seed in range(3)]
    weights = [variables(unit) for unit in units]

    def batch_norm(name, x, values):
        layer = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        layer.build(x.shape)
        parts = ("gamma", "beta", "moving_mean", "moving_variance")
        layer.set_weights([values[f"{name}/{part}"] for part in parts])
        return np.asarray(layer(x, training=training))

    def convolution(name, x, values):
        layer = keras.layers.Conv2D(INPUT_CHANNELS, 3, padding="same", use_bias=False)
        layer.build(x.shape)
        layer.set_weights([values[f"{name}/kernel"]])
        return np.asarray(layer(x))

    signal = images()
    activated = np.maximum(batch_norm("preact_bn", signal, weights[0]), 0)
    for number, values in enumerate(weights):
        residual = convolution("conv1", activated, values)
        residual = np.maximum(batch_norm("bn2", residual, values), 0)
        signal = signal + convolution("conv2", residual, values)
        if number < 2:
            activated = np.maximum(batch_norm("preact_bn", signal, weights[number + 1]), 0)

    x = images()
    for unit in units:
        x = unit(x, training=training)
    np.testing.assert_allclose(x, signal, rtol=1e-4, atol=1e-4)
