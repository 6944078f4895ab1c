"""The gradient by length of path against closed forms, and against all paths one by one."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from toy_units import CLASSES, Toy, chain_of, small_network

from keras_preact.analysis.paths import path_lengths
from keras_preact.layers import ResidualUnit
from keras_preact.models import PlainNet


def sample(shape, batch=3):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, *shape)).astype("float32")
    return images, rng.integers(0, CLASSES, batch)


def linear(labels, outputs):
    """A loss whose gradient is the same for all outputs."""
    return tf.reduce_sum(outputs * tf.cast(labels, outputs.dtype)[:, None])


def unit_gradient_norm(model, images, labels):
    """Norm of the gradient of `linear` at the output of the last unit of a `chain_of` units."""
    kernel = np.sum(np.float64(model.layers[-1].kernel), axis=1)
    pixels = math.prod(images.shape[1:3])
    return np.linalg.norm(kernel) * np.linalg.norm(labels) / math.sqrt(pixels)


@pytest.mark.parametrize(
    ("a", "b", "count"), [(1.0, 0.5, 6), (0.5, -0.25, 5), (1.0, -3.0, 7), (2.0, 1.0, 1)]
)
def test_the_lengths_of_linear_units_are_binomial(a, b, count):
    model = chain_of([Toy(a, b) for _ in range(count)])
    images, labels = sample((4, 4, 3))
    found = path_lengths(model, images, labels, loss=linear)
    paths = [math.comb(count, k) for k in range(count + 1)]
    factors = np.array([c * a ** (count - k) * b**k for k, c in enumerate(paths)])
    np.testing.assert_array_equal(found.paths, paths)
    assert found.paths.dtype == np.float64
    np.testing.assert_allclose(found.share, factors / (a + b) ** count, rtol=1e-5)
    norm = unit_gradient_norm(model, images, labels)
    np.testing.assert_allclose(found.gradient_norm, np.abs(factors) * norm, rtol=1e-5)
    assert found.units == tuple(layer.name for layer in model.layers[1 : count + 1])


def test_lengths_beyond_the_range_of_float32_are_found():
    count, a, b = 8, 1e-9, 1e9
    model = chain_of([Toy(a, b) for _ in range(count)])
    images, labels = sample((4, 4, 3))
    found = path_lengths(model, images, labels, loss=linear)
    exponents = 9.0 * (2 * np.arange(count + 1) - count)
    norms = found.paths * unit_gradient_norm(model, images, labels) * 10**exponents
    np.testing.assert_allclose(found.gradient_norm, norms, rtol=1e-4)


def path_by_path(model, images, labels, training):
    """The gradient at the first unit by length: for each of 2^L paths, all others stopped."""
    units = [layer for layer in model.layers if isinstance(layer, ResidualUnit | Toy)]
    start = model.layers.index(units[0])
    x_1 = keras.ops.convert_to_tensor(images)
    for layer in model.layers[1:start]:
        x_1 = layer(x_1, training=training)
    totals = [0.0] * (len(units) + 1)
    for choice in itertools.product((False, True), repeat=len(units)):
        through_residual = dict(zip(units, choice, strict=True))
        with tf.GradientTape() as tape:
            tape.watch(x_1)
            x = x_1
            for layer in model.layers[start:]:
                if layer in units:
                    x = one_path(layer, x, through_residual[layer], training)
                else:
                    x = layer(x, training=training)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x))
        totals[sum(choice)] += np.array(tape.gradient(loss, x_1))
    return totals


def one_path(unit, x, through_residual, training):
    """The output of a unit, with a gradient through only one of its two paths."""
    if isinstance(unit, Toy):
        shortcut = unit.a * x
        whole = shortcut + unit.b * unit.w * x
    else:
        shortcut, whole = shortcut_of(unit, x, training), unit(x, training=training)
    # F is the sum less h.
    residual = whole - shortcut
    if through_residual:
        y = residual + tf.stop_gradient(shortcut)
    else:
        y = tf.stop_gradient(residual) + shortcut
    return tf.nn.relu(y) if isinstance(unit, Toy) and unit.relu else y


def shortcut_of(unit, x, training):
    """h(x) of a full pre-activation unit with identity shortcut and convolutional projections."""
    if not (unit.plan.changes_dimensions or unit.first_in_network):
        return x
    activated = tf.nn.relu(unit.preactivation[0](x, training=training))
    return unit.match[0](activated) if unit.plan.changes_dimensions else activated


def assert_matches_all_paths(model, images, labels, tolerance, training=True):
    found = path_lengths(model, images, labels, training=training)
    totals = path_by_path(model, images, labels, training)
    gradient = sum(totals)
    shares = [np.vdot(total, gradient) / np.vdot(gradient, gradient) for total in totals]
    norms = [np.linalg.norm(total) for total in totals]
    np.testing.assert_allclose(found.share, shares, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.gradient_norm, norms, rtol=tolerance)
    np.testing.assert_allclose(found.share.sum(), 1, rtol=1e-12)


@pytest.mark.parametrize(("units", "training"), [(2, True), (1, False)])
def test_the_lengths_of_a_resnet_are_those_of_all_its_paths(units, training):
    keras.config.set_dtype_policy("float64")
    model = small_network(units, projection="convolution")
    images, labels = sample((8, 8, 3))
    assert_matches_all_paths(model, images.astype("float64"), labels, 1e-9, training)


def test_f_stands_in_all_paths():
    # More gradients than are propagated in one call, and a layer between two units.
    units = [Toy(1, 0.5, relu=True, seed=seed) for seed in range(6)]
    units.insert(3, keras.layers.Rescaling(2.0, offset=[0.5, -0.5, 0.2]))
    assert_matches_all_paths(chain_of(units), *sample((4, 4, 3)), 1e-4)


def test_all_of_a_plain_net_comes_through_every_unit():
    model = PlainNet(14, width_multiplier=0.5, input_shape=(8, 8, 3), classes=CLASSES)
    found = path_lengths(model, *sample((8, 8, 3)))
    np.testing.assert_allclose(found.share, [0, 0, 0, 0, 0, 0, 1], rtol=1e-12)
    assert found.gradient_norm[6] > 0 and not found.gradient_norm[:6].any()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_finds_the_lengths_too(policy):
    images, labels = sample((8, 8, 3))
    found = []
    for name in ("float32", policy):
        keras.config.set_dtype_policy(name)
        keras.utils.set_random_seed(0)
        found.append(path_lengths(small_network(), images, labels, training=False))
    np.testing.assert_allclose(found[1].share, found[0].share, atol=0.05)


def test_a_network_without_a_gradient_has_no_shares():
    model = chain_of([Toy(1, 1), Toy(1, 1)])
    found = path_lengths(
        model, *sample((4, 4, 3)), loss=lambda labels, outputs: tf.reduce_sum(0 * outputs)
    )
    assert np.isnan(found.share).all() and not found.gradient_norm.any()


def test_taps_that_are_not_what_the_unit_computes_are_refused():
    model = chain_of([Toy(1, 1), Toy(1, 1, wrong_by=0.01)])
    with pytest.raises(ArithmeticError, match=r"must add up .*Received: .* differs by .*float32"):
        path_lengths(model, *sample((4, 4, 3)))


def test_labels_that_are_not_classes_are_refused():
    images, labels = sample((4, 4, 3))
    with pytest.raises(ValueError, match="labels must be a whole number from 0 to 4"):
        path_lengths(chain_of([Toy(1, 1)]), images, labels + CLASSES)
