"""Tracing: the graph and the weights of a network's inference."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_nets import (
    SHAPE,
    Function,
    assert_same,
    keras_outputs,
    make_net,
    make_resnet,
    normalized_images,
    run,
)

from keras_preact.exporting.graph import network


def test_a_graph_returns_logits_and_pooled_features_of_any_number_of_images():
    model = make_resnet("bottleneck", shortcut="exclusive_gating")
    graph = network.trace(model, SHAPE)
    for count in (1, 5):
        images = normalized_images(count)
        got = run(graph, images)
        assert_same(got, keras_outputs(model, images))
        assert got["logits"].shape == (count, 7)
        assert got["features"].shape == (count, 256)


def test_logits_are_what_the_layer_of_that_name_returns_whatever_follows():
    model = make_resnet(classifier_activation="softmax")
    images = normalized_images()
    got = run(network.trace(model, SHAPE), images)["logits"]
    exponentials = np.exp(got)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model(images), probabilities, atol=1e-5)
    assert np.abs(got - model(images)).max() > 0.1


def test_weights_are_the_models_own_by_placeholder():
    model = make_resnet()
    graph = network.trace(model, SHAPE)
    for variable in model.variables:
        np.testing.assert_array_equal(graph.weights[variable.path], variable.numpy())
    placeholders = {n.name for n in graph.definition.node if n.op == "Placeholder"}
    assert placeholders == {graph.input, *graph.weights}
    held = [n for n in graph.definition.node if n.op in ("VarHandleOp", "ReadVariableOp")]
    assert not held


def test_a_graph_is_the_same_under_a_global_channels_first():
    def trace(data_format):
        keras.config.set_image_data_format(data_format)
        try:
            keras.utils.set_random_seed(0)
            return network.trace(make_resnet("bottleneck"), SHAPE)
        finally:
            keras.config.set_image_data_format("channels_last")

    first, last = trace("channels_first"), trace("channels_last")
    assert [node.op for node in first.definition.node] == [n.op for n in last.definition.node]
    assert_same(run(first, normalized_images()), run(last, normalized_images()))
    for path, value in last.weights.items():
        np.testing.assert_array_equal(first.weights[path], value)


def test_a_frozen_layer_and_layers_of_training_alone_change_nothing():
    model = make_resnet(shortcut="dropout", stochastic_depth_rate=0.5)
    model.get_layer("stage1_unit1").trainable = False
    images = normalized_images()
    got = [run(network.trace(model, SHAPE), images) for _ in range(2)]
    assert_same(got[0], keras_outputs(model, images))
    np.testing.assert_array_equal(got[0]["logits"], got[1]["logits"])


def test_a_graph_computes_with_the_weights_that_it_is_called_with():
    graph = network.trace(make_resnet(), SHAPE)
    images = normalized_images()
    variables = {name: tf.Variable(value) for name, value in graph.weights.items()}
    infer = tf.function(lambda images: graph(images, variables))
    before = infer(images)
    assert_same({k: v.numpy() for k, v in before.items()}, run(graph, images))
    variables["logits/kernel"].assign(3 * variables["logits/kernel"])
    variables["logits/bias"].assign(3 * variables["logits/bias"])
    np.testing.assert_allclose(infer(images)["logits"], 3 * before["logits"], rtol=1e-4)


def test_a_tensor_that_a_layer_made_once_is_a_weight():
    tensor = tf.constant([1.0, -2.0, 3.0])
    model = make_net(Function(lambda x: x * tensor))
    graph, images = network.trace(model, SHAPE), normalized_images()
    assert any(np.array_equal(value, tensor) for value in graph.weights.values())
    assert_same(run(graph, images), keras_outputs(model, images))


def test_a_function_inside_of_a_layer_is_left_as_it_was():
    double = tf.function(lambda x: 2 * x)
    model = make_net(Function(double))
    graph, images = network.trace(model, SHAPE), normalized_images()
    assert_same(run(graph, images), keras_outputs(model, images))
    [function] = graph.definition.library.function
    for name, attribute in function.attr.items():
        assert attribute.WhichOneof("value"), f"{name} is without a value"


def _python(x):
    return tf.ensure_shape(tf.py_function(tf.identity, [x], tf.float32), x.shape)


def _numpy(x):
    return tf.ensure_shape(tf.numpy_function(lambda y: y, [x], tf.float32), x.shape)


@pytest.mark.parametrize("function", [_python, _numpy, tf.function(_python)])
def test_python_is_refused(function):
    with pytest.raises(ValueError, match=r"must not call Python, .* Received: .*PyFunc"):
        network.trace(make_net(Function(function)), SHAPE)


_double = tf.function(lambda x: 2 * x, jit_compile=True)


def _in_groups(x):
    return keras.ops.conv(x, np.ones((3, 3, 1, 3), np.float32), padding="same")


@pytest.mark.parametrize(
    "compute", [Function(_double), Function(tf.function(_double)), Function(_in_groups)]
)
def test_xla_is_refused_in_keras_too(compute):
    with pytest.raises(ValueError, match=r"must not be compiled by XLA, .* keras_preact.layers.Co"):
        network.trace(make_net(compute), SHAPE)


@pytest.mark.parametrize("make_variable", [tf.Variable, keras.Variable])
def test_a_variable_that_no_layer_owns_is_refused(make_variable):
    hidden = [make_variable(2.0)]
    # A layer would own the variable if it were its attribute.
    model = make_net(Function(lambda x: x * hidden[0]))
    with pytest.raises(ValueError, match="must belong to a layer of the model"):
        network.trace(model, SHAPE)
