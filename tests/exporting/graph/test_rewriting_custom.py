"""Rewriting networks of custom layers."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_nets import (
    FUSED_BN,
    SHAPE,
    Function,
    assert_same,
    chain,
    make_net,
    make_resnet,
    normalized_images,
    operations,
    rewritten,
    run,
)

from keras_preact.exporting.graph import network, rewriting
from keras_preact.layers import BatchNormalization

LAYERS = keras.layers


def test_an_output_of_the_graph_is_not_changed_by_what_follows_it():
    graph = network.trace(make_net(chain(LAYERS.Conv2D(4, 3), BatchNormalization())), SHAPE)
    [conv] = (node.name for node in graph.definition.node if node.op == "Conv2D")
    graph = dataclasses.replace(graph, outputs={**graph.outputs, "conv": f"{conv}:0"})
    images = normalized_images()
    last = rewriting.rewrite(graph)[-1].graph
    assert_same(run(last, images), run(graph, images))


def test_images_whose_channels_come_first_are_left_alone():
    # Such convolutions cannot run on CPUs, so only the graph is looked at.
    def first(x):
        x = tf.nn.conv2d(x, np.ones((3, 3, 9, 4), np.float32), 1, "SAME", data_format="NCHW")
        y, *_ = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=tf.ones([4]),
            offset=tf.ones([4]),
            mean=tf.ones([4]),
            variance=tf.ones([4]),
            data_format="NCHW",
            is_training=False,
        )
        return y

    layer = Function(first, (4, 8, 3))
    layer.build((None, *SHAPE))
    graph = rewriting.rewrite(network.trace(make_net(layer), SHAPE))[-1].graph
    assert operations(graph)[FUSED_BN] == 1


def test_a_check_inside_of_a_layer_still_fails():
    def checked(x):
        with tf.control_dependencies([tf.debugging.assert_less(x, 100.0)]):
            return tf.identity(x)

    graph = rewritten(make_net(Function(checked)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(graph, 101 + normalized_images())


def test_functions_inside_of_layers_stay_and_what_is_around_them_folds():
    double = tf.function(lambda x: 2 * tf.nn.relu(x))
    graph = rewritten(make_net(chain(LAYERS.Conv2D(4, 3), BatchNormalization(), Function(double))))
    counts = operations(graph)
    assert counts.pop("PartitionedCall", 0) + counts.pop("StatefulPartitionedCall", 0) == 1
    assert counts == {"Conv2D": 1, "BiasAdd": 2, "Mean": 1, "MatMul": 1}


def test_a_shape_that_is_computed_stays_known():
    def flattened(x):
        pixels = tf.constant([4, 3]) * tf.constant([2, 3]) + 1
        return tf.reshape(x, tf.concat([[-1], pixels - tf.constant([0, 2]), [3]], axis=0))

    graph = rewritten(make_net(Function(flattened, SHAPE)))
    assert {value.dtype for value in graph.weights.values()} == {np.dtype("float32")}
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    [reshape] = (op for op in imported.get_operations() if op.type == "Reshape")
    assert reshape.outputs[0].shape.as_list() == [None, *SHAPE]


def test_units_of_ones_own_lose_their_inner_bns():
    def make_unit(filters, strides, first_in_network, name):
        del first_in_network
        images = keras.Input((None, None, {"stage1": 16, "stage2": 16, "stage3": 32}[name[:6]]))
        x = LAYERS.BatchNormalization()(images)
        x = LAYERS.Conv2D(filters, 3, strides, "same")(LAYERS.Activation("silu")(x))
        x = LAYERS.BatchNormalization()(x)
        x = LAYERS.DepthwiseConv2D(3, padding="same")(LAYERS.Activation("silu")(x))
        x = LAYERS.Conv2D(filters, 1)(BatchNormalization()(x))
        x = LAYERS.Rescaling(0.5)(BatchNormalization()(x))
        return keras.Model(images, x + LAYERS.Conv2D(filters, 1, strides)(images), name=name)

    counts = operations(rewritten(make_resnet(unit=make_unit)))
    # The stem is read twice, so that all three units keep the first BN; the head keeps its own.
    assert counts["Conv2D"] == 1 + 3 * 3
    assert counts["DepthwiseConv2dNative"] == 3
    assert FUSED_BN not in counts
    # x * sigmoid(1 * x)
    of_silu = 3 * 2 * 2
    assert counts["Mul"] - of_silu == 3 + 1
