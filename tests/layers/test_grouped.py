"""Grouped convolutions and their gradients, in every form, against one convolution a group."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from reference import conv2d

from keras_preact.layers import Conv2D, grouped
from keras_preact.layers.batch_norm import traced_for_xla

# TensorFlow's own operation, several smaller ones, and the same under XLA.
FORMS = {"own": False, "unknown": None, "xla": True}
TOLERANCES = {"float32": 1e-5, "float64": 1e-5, "float16": 5e-3, "bfloat16": 4e-2}


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def by_groups(x, kernel, groups, strides=1):
    """Each group's convolution by its definition."""
    parts = zip(np.split(x, groups, axis=-1), np.split(kernel, groups, axis=-1), strict=True)
    return np.concatenate([conv2d(part, own, strides) for part, own in parts], axis=-1)


def gradients_by_groups(x, kernel, groups, strides, upstream):
    """The gradients by images and kernel of by_groups, from TensorFlow's plain convolutions."""
    pad = (kernel.shape[0] - 1) // 2
    x, kernel, upstream = (tf.constant(value, tf.float64) for value in (x, kernel, upstream))
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        padded = tf.pad(x, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        parts = zip(tf.split(padded, groups, -1), tf.split(kernel, groups, -1), strict=True)
        y = tf.concat([tf.nn.conv2d(part, own, strides, "VALID") for part, own in parts], -1)
    return tape.gradient(y, [x, kernel], upstream)


def computed(layer, x, upstream, compiles, as_loop=False):
    """Output and gradients by images and kernel, in a graph."""
    kernel = layer.kernel.value

    @tf.function(jit_compile=compiles is True)
    def step(x, upstream):
        def once(x):
            with tf.GradientTape() as tape, traced_for_xla(compiles):
                tape.watch([x, kernel])
                y = layer(x)
            return y, *tape.gradient(y, [x, kernel], upstream)

        if not as_loop:
            return once(x)
        specs = [tf.zeros_like(value) for value in once(x)]
        body = lambda n, *_: (n + 1, *once(x))  # noqa: E731
        return tf.while_loop(lambda n, *_: n < 2, body, (0, *specs))[1:]

    return [np.asarray(tf.cast(value, tf.float64)) for value in step(x, upstream)]


CASES = [
    # channels, filters, groups, kernel size, strides, height and width
    (8, 8, 4, 3, 1, (5, 6)),
    (12, 6, 3, 3, 2, (6, 7)),
    (64, 64, 32, 3, 1, (4, 4)),
    (40, 80, 2, 1, 2, (5, 5)),
    (6, 12, 6, 5, 1, (5, 5)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_output_and_gradients_are_those_of_one_convolution_a_group(form, case):
    channels, filters, groups, size, strides, image = case
    layer = Conv2D(filters, size, strides, groups=groups)
    x = normal(3, *image, channels)
    assert layer.compute_output_shape(x.shape) == layer(x).shape
    kernel = layer.kernel.numpy()
    assert kernel.shape == (size, size, channels // groups, filters)
    expected = by_groups(x, kernel, groups, strides)
    upstream = normal(*expected.shape)
    y, *gradients = computed(layer, x, upstream, FORMS[form])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    by_hand = gradients_by_groups(x, kernel, groups, strides, upstream)
    for gradient, other in zip(gradients, by_hand, strict=True):
        np.testing.assert_allclose(gradient, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16", "float64"])
@pytest.mark.parametrize("form", ["own", "unknown"])
def test_every_precision_has_gradients(form, dtype):
    layer = Conv2D(16, 3, groups=4, dtype=dtype)
    x = normal(2, 6, 6, 8)
    layer.build(x.shape)
    kernel = layer.kernel.numpy()
    expected = by_groups(x, kernel, 4)
    upstream = normal(*expected.shape)
    given = [tf.cast(value, layer.compute_dtype) for value in (x, upstream)]
    found = computed(layer, *given, FORMS[form])
    by_hand = gradients_by_groups(x, kernel, 4, 1, upstream)
    for value, other in zip(found, (expected, *by_hand), strict=True):
        difference = np.abs(value - other).max() / np.abs(other).max()
        assert difference < TOLERANCES[layer.compute_dtype]


def test_a_loop_of_tensorflow_has_gradients_too():
    layer = Conv2D(8, 3, groups=4)
    x = normal(2, 5, 5, 8)
    layer(x)
    upstream = normal(2, 5, 5, 8)
    straight, looped = (computed(layer, x, upstream, False, loop) for loop in (False, True))
    for value, other in zip(straight, looped, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-6)


def test_a_dilated_convolution_has_groups():
    layer, plain = Conv2D(8, 3, groups=2, dilation_rate=2), Conv2D(4, 3, dilation_rate=2)
    x = normal(1, 9, 9, 8)
    y = layer(x)
    plain.build((None, 9, 9, 4))
    plain.kernel.assign(layer.kernel[..., 4:])
    np.testing.assert_allclose(y[..., 4:], plain(x[..., 4:]), rtol=1e-5, atol=1e-5)


def test_a_layer_of_groups_survives_saving(tmp_path):
    images = keras.Input((5, 5, 8))
    model = keras.Model(images, Conv2D(8, 3, groups=4)(images))
    model.save(tmp_path / "net.keras")
    loaded = keras.models.load_model(tmp_path / "net.keras")
    assert loaded.layers[1].groups == 4
    np.testing.assert_array_equal(loaded(normal(1, 5, 5, 8)), model(normal(1, 5, 5, 8)))


@pytest.mark.parametrize(("channels", "filters", "groups"), [(9, 8, 4), (8, 9, 4)])
def test_groups_must_divide_channels_and_filters(channels, filters, groups):
    with pytest.raises(ValueError, match="evenly divisible by the number of groups"):
        Conv2D(filters, 3, groups=groups)(normal(1, 4, 4, channels))


def test_without_groups_nothing_changes():
    layer, keras_layer = Conv2D(4, 3), keras.layers.Conv2D(4, 3, padding="same", use_bias=False)
    x = normal(2, 5, 5, 3)
    y = layer(x)
    keras_layer.build(x.shape)
    keras_layer.kernel.assign(layer.kernel)
    np.testing.assert_array_equal(y, keras_layer(x))


class Custom(keras.layers.Conv2D):
    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, kernel) + 1


def functions_for_xla(layer, x):
    graph = tf.function(lambda x: layer(x)).get_concrete_function(x).graph.as_graph_def()
    return [f for f in graph.library.function if f.attr["_XlaMustCompile"].b]


def test_keras_own_layers_are_no_longer_compiled_by_xla():
    images = keras.Input((6, 6, 8))
    inner = keras.layers.Conv2D(8, 3, 2, padding="same", groups=2, use_bias=True)
    model = keras.Model(images, keras.Sequential([inner])(images))
    x = normal(2, 6, 6, 8)
    inner.bias.assign(normal(8))
    before = model(x)
    assert functions_for_xla(model, x)
    grouped.use_in_keras_layers(model)
    assert not functions_for_xla(model, x)
    np.testing.assert_allclose(model(x), before, rtol=1e-4, atol=1e-5)


def test_layers_that_convolve_in_their_own_way_are_left_alone():
    own = Custom(8, 3, groups=2)
    x = normal(2, 6, 6, 8)
    before = own(x)
    grouped.use_in_keras_layers(own)
    np.testing.assert_array_equal(own(x), before)


SCRIPT = """
import numpy as np, tensorflow as tf
from keras_preact.layers import Conv2D, grouped
from keras_preact.layers.batch_norm import traced_for_xla
assert not grouped._has_gradient_on_cpu("float32")
layer = Conv2D(16, 3, groups=8)
x = tf.constant(np.random.default_rng(0).normal(size=(2, 5, 5, 16)), tf.float32)
layer.build(x.shape)
gradients = []
for channels in (16, 1):
    grouped._BLOCK_CHANNELS = channels
    with tf.GradientTape() as tape, traced_for_xla(False):
        y = tf.reduce_sum(tf.sin(layer(x)))
    gradients.append(tape.gradient(y, layer.kernel.value))
np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow
def test_where_tensorflow_has_no_gradient_smaller_convolutions_have_it():
    # As on processors without oneDNN.
    root = pathlib.Path(__file__).parents[2]
    environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
