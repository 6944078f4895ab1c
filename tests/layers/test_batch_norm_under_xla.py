"""Batch normalization where XLA compiles it, against NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from replicas import float64, forward_and_backward

from keras_preact.layers import BatchNormalization
from keras_preact.layers.batch_norm import is_traced_for_xla, traced_for_xla

CHANNELS = 6
NAMES = ("y", "x", "gamma", "beta", "mean", "variance")
# The largest rounding error of a value in the layer's precision, relative to it.
ROUNDING = {"float32": 2e-5, "mixed_bfloat16": 2**-8, "mixed_float16": 2**-11}


def layer_and_images(dtype, ratio, batch=16):
    """A fresh layer that keeps the batch's statistics, and images of a mean and deviation 1."""
    layer = BatchNormalization(momentum=0.0, dtype=dtype)
    layer.build((None, 12, 10, CHANNELS))
    rng = np.random.default_rng(0)
    for variable in (layer.gamma, layer.beta):
        variable.assign(rng.uniform(0.5, 2, CHANNELS))
    x, upstream = (rng.normal(mean, 1, (batch, 12, 10, CHANNELS)) for mean in (ratio, 0))
    return layer, *(tf.constant(v, layer.compute_dtype) for v in (x, upstream))


def results(function, layer, x, upstream):
    """The values of `NAMES`, in float64."""
    values = function(x, upstream)
    return [float64(v) for v in (*values, layer.moving_mean, layer.moving_variance)]


def in_numpy(layer, x, upstream):
    x, upstream, gamma, beta = (float64(v) for v in (x, upstream, layer.gamma, layer.beta))
    axes = (0, 1, 2)
    mean, deviation = x.mean(axes), np.sqrt(x.var(axes) + layer.epsilon)
    normalized = (x - mean) / deviation
    dgamma, dbeta = (upstream * normalized).sum(axes), upstream.sum(axes)
    count = x.size / CHANNELS
    dx = gamma / deviation * (upstream - dbeta / count - normalized * dgamma / count)
    return [normalized * gamma + beta, dx, dgamma, dbeta, mean, x.var(axes)]


def assert_right(found, expected, dtype, ratio):
    found, expected = (dict(zip(NAMES, values, strict=True)) for values in (found, expected))
    np.testing.assert_allclose(found["mean"], expected["mean"], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found["variance"], expected["variance"], rtol=1e-4)
    for name in NAMES[:4]:
        scale = np.abs(expected[name]).max()
        # float32 has steps of 6e-8 of the mean, which the kernel sums up without XLA.
        tolerance = ROUNDING[dtype] + 1e-6 * ratio
        np.testing.assert_allclose(
            found[name] / scale, expected[name] / scale, atol=tolerance, err_msg=name
        )


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("dtype", "ratio"),
    [
        *(("float32", ratio) for ratio in (0, 1, 10, 100, 1000)),
        *(("mixed_bfloat16", ratio) for ratio in (1, 10, 100)),
        ("mixed_float16", 100),
    ],
)
def test_a_fresh_layer_is_right_for_means_of_many_deviations(dtype, ratio, jit):
    layer, x, upstream = layer_and_images(dtype, ratio)
    step = tf.function(lambda *v: forward_and_backward(layer, *v), jit_compile=jit)
    found = results(step, layer, x, upstream)
    assert_right(found, in_numpy(layer, x, upstream), dtype, ratio)


@pytest.mark.parametrize("first", ["compiled", "plain"])
@pytest.mark.parametrize(("dtype", "ratio"), [("float32", 1000), ("mixed_bfloat16", 100)])
def test_a_function_traced_once_is_right_in_compiled_and_in_other_callers(first, dtype, ratio):
    layer, x, upstream = layer_and_images(dtype, ratio)
    traces = []

    @tf.function
    def inner(x, upstream):
        traces.append(x)
        return forward_and_backward(layer, x, upstream)

    callers = {
        "compiled": tf.function(lambda *v: inner(*v), jit_compile=True),
        "plain": tf.function(lambda *v: inner(*v)),
    }
    expected = in_numpy(layer, x, upstream)
    for name in (first, *callers):
        assert_right(results(callers[name], layer, x, upstream), expected, dtype, ratio)
    assert len(traces) == 1


@pytest.mark.parametrize("nesting", ["while_loop", "cond", "unknown_batch", "concrete"])
def test_the_layer_is_right_wherever_a_compiled_function_calls_it(nesting):
    layer, x, upstream = layer_and_images("float32", ratio=100)

    def step(x, upstream):
        if nesting == "while_loop":
            start = (0, (x, upstream, layer.gamma.value, layer.gamma.value))

            def body(number, _):
                return number + 1, forward_and_backward(layer, x, upstream)

            return tf.while_loop(lambda number, _: number < 2, body, start)[1]
        if nesting == "cond":
            call = lambda: forward_and_backward(layer, x, upstream)  # noqa: E731
            return tf.cond(tf.reduce_sum(x) > 0, call, call)
        return forward_and_backward(layer, x, upstream)

    spec = tf.TensorSpec((None, *x.shape[1:]))
    signature = [spec, spec] if nesting == "unknown_batch" else None
    function = tf.function(step, jit_compile=True, input_signature=signature)
    if nesting == "concrete":
        function = function.get_concrete_function(x, upstream)
    assert_right(
        results(function, layer, x, upstream), in_numpy(layer, x, upstream), "float32", 100
    )


def test_keras_fit_compiled_by_xla_learns_the_statistics_of_images_far_from_zero():
    layer, x, _ = layer_and_images("float32", ratio=1000)
    model = keras.Sequential([keras.Input(x.shape[1:]), layer, keras.layers.Flatten()])
    model.compile("sgd", "mse", jit_compile=True)
    target = np.zeros((len(x), np.prod(x.shape[1:])), "float32")
    history = model.fit(x, target, batch_size=len(x), epochs=1, verbose=0).history
    np.testing.assert_allclose(layer.moving_variance, float64(x).var((0, 1, 2)), rtol=1e-4)
    assert np.isfinite(history["loss"]).all()


@pytest.mark.parametrize("compiles", [True, None])
def test_one_pixel_has_no_variance_under_xla_either(compiles):
    layer = BatchNormalization(momentum=0.0)
    layer.build((1, 1, 1, 3))
    with traced_for_xla(compiles):
        function = tf.function(lambda x: layer(x, training=True), jit_compile=True)
        y = function(tf.fill((1, 1, 1, 3), 7.0))
    np.testing.assert_array_equal(y, np.zeros((1, 1, 1, 3)))
    np.testing.assert_array_equal(layer.moving_mean, [7.0, 7.0, 7.0])
    np.testing.assert_array_equal(layer.moving_variance, [0.0, 0.0, 0.0])


@pytest.mark.parametrize("jit", [True, False])
def test_a_frozen_layer_uses_and_keeps_its_moving_statistics(jit):
    layer, x, upstream = layer_and_images("float32", ratio=100)
    layer.trainable = False
    layer.moving_mean.assign([100.0] * CHANNELS)
    function = tf.function(lambda *v: forward_and_backward(layer, *v), jit_compile=jit)
    y, dx, *_, mean, variance = results(function, layer, x, upstream)
    gamma, scale = float64(layer.gamma), 1 / np.sqrt(1 + 1e-5)
    expected = (float64(x) - 100) * scale * gamma + float64(layer.beta)
    np.testing.assert_allclose(y, expected, atol=1e-4)
    np.testing.assert_allclose(dx, float64(upstream) * scale * gamma, atol=1e-5)
    np.testing.assert_array_equal(mean, [100.0] * CHANNELS)
    np.testing.assert_array_equal(variance, np.ones(CHANNELS))


def test_second_derivatives_do_not_depend_on_xla():
    layer, x, upstream = layer_and_images("float32", ratio=3, batch=4)

    def second(x, upstream):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = layer(x, training=True) ** 2
            gradient = inner.gradient(y, x, output_gradients=upstream)
        return outer.gradient(gradient, x, output_gradients=upstream)

    plain, compiled = (tf.function(second, jit_compile=jit)(x, upstream) for jit in (False, True))
    np.testing.assert_allclose(compiled, plain, atol=1e-4 * np.abs(plain).max())


def operations(function, *arguments):
    graph = function.get_concrete_function(*arguments).graph
    return [operation.type for operation in graph.get_operations()]


def test_what_a_caller_says_about_xla_saves_the_choice_in_the_graph():
    layer, x, _ = layer_and_images("float32", ratio=0)
    found = {}
    for compiles in (None, True, False):
        with traced_for_xla(compiles):
            found[compiles] = operations(tf.function(lambda x: layer(x, training=True)), x)
        assert found[compiles].count("FusedBatchNormV3") == 1
    choice, shift = "DeviceIndex", "Bitcast"
    assert choice in found[None] and shift not in found[None]
    assert shift in found[True] and choice not in found[True]
    assert not {shift, choice} & set(found[False])
    assert not is_traced_for_xla()


def test_without_xla_a_layer_computes_to_the_bit_what_the_kernel_alone_does():
    layer, x, upstream = layer_and_images("float32", ratio=1)
    found = []
    for compiles in (None, False):
        with traced_for_xla(compiles):
            step = tf.function(lambda *v: forward_and_backward(layer, *v))
            found.append(results(step, layer, x, upstream))
    for guarded, alone in zip(*found, strict=True):
        np.testing.assert_array_equal(guarded, alone)
