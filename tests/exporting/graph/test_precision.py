"""Networks that compute in bfloat16 or float16."""

import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from tiny_nets import (
    SHAPE,
    chain,
    keras_outputs,
    make_net,
    make_resnet,
    normalized_images,
    operations,
    run,
)
from variants import SHORTCUTS

from keras_preact.exporting.graph import network, rewriting
from keras_preact.exporting.graph.precision import lower_precision
from keras_preact.layers import Conv2D

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
# The distance of a number from the next one, relative to it.
SPACINGS = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
# Operations in float32: from normalized images, and from the pooling on.
CASTS = 2


def before(model):
    return rewriting.rewrite(network.trace(model, SHAPE))[-1].graph


def types(graph, op):
    """The types in which the operations of a kind compute."""
    return {tf.as_dtype(n.attr["T"].type).name for n in graph.definition.node if n.op == op}


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_outputs_differ_by_a_few_roundings(precision, shortcut):
    model = make_resnet(shortcut=shortcut)
    step, images = lower_precision(before(model), precision), normalized_images()
    expected, got = keras_outputs(model, images), run(step.graph, images)
    for name, value in expected.items():
        assert got[name].dtype == np.float32
        difference = np.abs(got[name] - value).max() / np.abs(value).max()
        assert 0 < difference < 4 * SPACINGS[precision]


@pytest.mark.parametrize("precision", DTYPES)
def test_convolutions_compute_in_it_and_the_classifier_in_float32(precision):
    graph = before(make_resnet("bottleneck"))
    lowered = lower_precision(graph, precision).graph
    counts, casts = operations(lowered), operations(lowered)["Cast"]
    assert casts == CASTS
    assert {op: n for op, n in counts.items() if op != "Cast"} == operations(graph)
    for op in ("Conv2D", "AddV2", "Relu", "Mul"):
        assert types(lowered, op) == {precision}, op
    # Of convolutions, and of the classifier.
    assert types(lowered, "BiasAdd") == {precision, "float32"}
    for op in ("Mean", "MatMul"):
        assert types(lowered, op) == {"float32"}


@pytest.mark.parametrize("precision", DTYPES)
def test_weights_are_the_nearest_numbers_of_the_precision(precision):
    graph = before(make_resnet())
    lowered = lower_precision(graph, precision).graph
    assert len(lowered.weights) == len(graph.weights)
    stored = {str(value.dtype) for value in lowered.weights.values()}
    assert stored == {precision, "float32"}
    for name, value in lowered.weights.items():
        original = graph.weights[name.removesuffix(f"/{precision}")]
        np.testing.assert_array_equal(value, original.astype(value.dtype))
        if value.ndim == 4:
            assert value.dtype == DTYPES[precision]
            normal = np.abs(original) > 1e-4
            relative = np.abs(value.astype(np.float64) / original - 1)[normal]
            assert 0 < relative.max() <= SPACINGS[precision] / 2


def test_an_operation_that_is_not_known_computes_in_float32_between_others():
    # TensorFlow has no convolution in three dimensions that we lower.
    def compute(x):
        x = Conv2D(4, 3)(x)
        x = keras.ops.expand_dims(x, -1)
        x = keras.layers.Conv3D(1, (1, 1, 3), padding="same")(x)
        return Conv2D(4, 3)(keras.ops.squeeze(x, -1))

    model = make_net(compute)
    lowered = lower_precision(before(model), "bfloat16").graph
    assert types(lowered, "Conv3D") == {"float32"}
    assert types(lowered, "Conv2D") == {"bfloat16"}
    assert operations(lowered)["Cast"] == 4
    images = normalized_images()
    expected, got = keras_outputs(model, images)["logits"], run(lowered, images)["logits"]
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


def test_a_weight_that_both_kinds_of_operation_read_is_stored_in_both():
    bias = np.float32([0.1, 0.2, 0.3])

    class Shared(keras.layers.Layer):
        def build(self, shape):
            self.bias = self.add_weight(shape=(3,), name="own")

        def call(self, x):
            return keras.ops.exp(x * self.bias) + keras.ops.mean(x, axis=(1, 2), keepdims=True)

        def compute_output_shape(self, shape):
            return shape

    layer = Shared()
    model = make_net(chain(layer))
    layer.bias.assign(bias)
    lowered = lower_precision(before(model), "bfloat16").graph
    images = normalized_images()
    expected, got = keras_outputs(model, images)["logits"], run(lowered, images)["logits"]
    np.testing.assert_allclose(got, expected, atol=0.05 * np.abs(expected).max())


@pytest.mark.parametrize("precision", ["float32", "int8", ""])
def test_another_precision_is_refused(precision):
    with pytest.raises(ValueError, match=r"precision must be .*bfloat16.*float16"):
        lower_precision(before(make_resnet()), precision)
