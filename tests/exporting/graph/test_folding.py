"""Operations that are folded into a convolution, and operations that must not be."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny_nets import FUSED_BN, Function, chain, make_net, operations, rewritten

from keras_preact.layers import BatchNormalization

LAYERS = keras.layers
HEAD = {"Mean": 1, "MatMul": 1, "BiasAdd": 1}


class Standardized(keras.layers.Layer):
    """A convolution whose kernel is computed from its weights, as in weight standardization."""

    def build(self, input_shape):
        self.kernel = self.add_weight(name="kernel", shape=(3, 3, input_shape[-1], 4))

    def call(self, x):
        mean, variance = tf.nn.moments(tf.convert_to_tensor(self.kernel), [0, 1, 2])
        return tf.nn.conv2d(x, (self.kernel - mean) * tf.math.rsqrt(variance + 1e-3), 1, "SAME")

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 4)


def subtracted(x):
    return (x - tf.constant([0.1, -0.2, 0.3, 0.4])) / tf.constant([[[[0.5, -2.0, 3.0, 1.5]]]])


FOLDING = {
    "Keras' BN": lambda: chain(LAYERS.Conv2D(4, 3), LAYERS.BatchNormalization()),
    "a BN without gamma and beta": lambda: chain(
        LAYERS.Conv2D(4, 3), LAYERS.BatchNormalization(scale=False, center=False)
    ),
    "no bias": lambda: chain(LAYERS.Conv2D(4, 3, use_bias=False), BatchNormalization()),
    "strides": lambda: chain(LAYERS.Conv2D(4, 3, 2, "same"), BatchNormalization()),
    "one channel": lambda: chain(LAYERS.Conv2D(1, 3), BatchNormalization()),
    "two BNs and a scale": lambda: chain(
        LAYERS.Conv2D(4, 3),
        LAYERS.BatchNormalization(),
        LAYERS.Rescaling(-0.5, 0.25),
        BatchNormalization(),
    ),
    "a difference and a quotient": lambda: chain(LAYERS.Conv2D(4, 3), Function(subtracted)),
    "constants first": lambda: chain(
        LAYERS.Conv2D(4, 3), Function(lambda x: 0.3 + tf.constant([[2.0], [3.0]])[1] * x)
    ),
    "a kernel that is computed": lambda: chain(Standardized(), BatchNormalization()),
    "identities between": lambda: chain(
        LAYERS.Conv2D(4, 3), Function(tf.stop_gradient), LAYERS.Dropout(0.5), BatchNormalization()
    ),
}


@pytest.mark.parametrize("name", FOLDING)
def test_what_scales_and_shifts_channels_folds_into_the_convolution_before(name):
    graph = rewritten(make_net(FOLDING[name]()))
    assert operations(graph) == {**HEAD, "Conv2D": 1, "BiasAdd": 2}


def test_what_only_scales_leaves_no_bias():
    graph = rewritten(
        make_net(chain(LAYERS.Conv2D(4, 3, use_bias=False), Function(lambda x: 2 * x)))
    )
    assert operations(graph) == {**HEAD, "Conv2D": 1}


def read_twice(x):
    x = LAYERS.Conv2D(4, 3)(x)
    return BatchNormalization()(x) + x


def one_channel_to_four(x):
    return x * tf.constant([1.0, -2.0, 3.0, 4.0])


def by_row(x):
    return x * tf.reshape(tf.range(1.0, 8), [1, 7, 1, 1])


def by_column(x):
    return x + tf.reshape(tf.range(6.0), [6, 1])


def by_pixel(x):
    return x * tf.reshape(tf.range(7.0 * 6 * 4), [7, 6, 4])


def of_the_batch(x):
    empty, ones = tf.zeros([0]), tf.ones([4])
    arguments = {"x": x, "scale": ones, "offset": ones, "mean": empty, "variance": empty}
    return tf.raw_ops.FusedBatchNormV3(**arguments, is_training=True).y


def with_statistics(x):
    ones = tf.ones([4])
    y, mean, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x, scale=2 * ones, offset=ones, mean=3 * ones, variance=ones, is_training=False
    )
    return y * mean


def after_a_convolution(x):
    with tf.control_dependencies([tf.nn.conv2d(x, tf.ones([3, 3, 3, 4]), 1, "SAME")]):
        return tf.identity(x)


# Numbers of operations that must be left.
KEEPING = {
    "a convolution that is read twice": (read_twice, {"Mul": 1, "AddV2": 2}),
    "a product with itself": (
        chain(LAYERS.Conv2D(4, 3), Function(lambda x: x * x)),
        {"Mul": 1},
    ),
    "a constant for each row": (chain(LAYERS.Conv2D(4, 3), Function(by_row)), {"Mul": 1}),
    "a constant for each column": (chain(LAYERS.Conv2D(4, 3), Function(by_column)), {"AddV2": 1}),
    "a constant for each pixel": (chain(LAYERS.Conv2D(4, 3), Function(by_pixel)), {"Mul": 1}),
    "a product of more channels": (
        chain(LAYERS.Conv2D(1, 3), Function(one_channel_to_four, (7, 6, 4))),
        {"Mul": 1},
    ),
    "a quotient the other way round": (
        chain(LAYERS.Conv2D(4, 3), Function(lambda x: 1 / (x + 50))),
        {"RealDiv": 1},
    ),
    "a difference the other way round": (
        chain(LAYERS.Conv2D(4, 3), Function(lambda x: 1 - x)),
        {"Sub": 1},
    ),
    "an activation between": (
        chain(LAYERS.Conv2D(4, 3, activation="relu"), BatchNormalization()),
        {"Relu": 1, "Mul": 1, "AddV2": 1},
    ),
    "statistics of the batch": (
        chain(LAYERS.Conv2D(4, 3), Function(of_the_batch)),
        {FUSED_BN: 1},
    ),
    "statistics that are read": (
        chain(LAYERS.Conv2D(4, 3), Function(with_statistics)),
        {FUSED_BN: 1, "Mul": 1},
    ),
    "pixels in another order between": (
        chain(LAYERS.Conv2D(4, 2, dilation_rate=2), BatchNormalization()),
        {"BatchToSpaceND": 1, "Mul": 1, "AddV2": 1},
    ),
    "a convolution that must run but is not read": (
        Function(after_a_convolution),
        {"Conv2D": 1, "Identity": 1},
    ),
}


@pytest.mark.parametrize("name", KEEPING)
def test_nothing_else_is_folded(name):
    compute, left = KEEPING[name]
    counts = operations(rewritten(make_net(compute)))
    for op, count in left.items():
        assert counts[op] == count, op


def test_a_kernel_of_two_convolutions_is_scaled_for_each_of_them():
    conv = LAYERS.Conv2D(3, 3, padding="same")
    graph = rewritten(make_net(chain(conv, BatchNormalization(), conv, BatchNormalization())))
    assert operations(graph) == {**HEAD, "Conv2D": 2, "BiasAdd": 3}


def test_of_two_convolutions_with_one_kernel_the_one_that_cannot_fold_keeps_it():
    conv = LAYERS.Conv2D(3, 3, padding="same")
    graph = rewritten(make_net(chain(conv, BatchNormalization(), conv, LAYERS.ReLU())))
    kernels = [value for value in graph.weights.values() if value.ndim == 4]
    assert sum(np.array_equal(kernel, conv.kernel) for kernel in kernels) == 1
    assert len(kernels) == 2
