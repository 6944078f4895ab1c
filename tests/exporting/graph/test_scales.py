"""Scales that move through ReLUs, and those that must stay."""

import keras
import numpy as np
import pytest
from tiny_nets import (
    SHAPE,
    assert_same,
    chain,
    keras_outputs,
    make_net,
    make_resnet,
    normalized_images,
    operations,
    perturbed,
    run,
)
from variants import SHORTCUTS

from keras_preact import ResNetV2
from keras_preact.exporting.graph import network, rewriting
from keras_preact.exporting.graph.scales import move_scales
from keras_preact.layers import BatchNormalization, Conv2D

# BNs before a ReLU that convolutions alone read, in nets of three units: those between units where
# the projection is a convolution too. The stem's BN is folded, the head's ReLU is pooled.
MOVED = {
    "full_preactivation": {"single": 0, "basic": 0, "bottleneck": 2},
    "bn_after_addition": {"single": 0, "basic": 0, "bottleneck": 2},
    "original": {"single": 0, "basic": 0, "bottleneck": 0},
}


def scaled(model, value=None):
    """The model, with scales of BNs made positive; the first of each BN has the value."""
    for variable in model.variables:
        if variable.name == "gamma":
            scales = np.abs(variable.numpy()) + 0.01
            if value is not None:
                scales[0] = value
            variable.assign(scales)
    return model


def moved(model):
    """The graph before and after; asserts that it computes what Keras does."""
    before = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    step = move_scales(before)
    images = normalized_images()
    assert_same(run(step.graph, images), keras_outputs(model, images))
    count = operations(before).get("Mul", 0) - operations(step.graph).get("Mul", 0)
    assert step.description == f"moved {count} scales through ReLUs into convolutions"
    return before, step.graph, count


@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
@pytest.mark.parametrize("order", MOVED)
def test_the_scale_at_a_units_entry_moves_into_its_convolutions(order, block):
    before, after, count = moved(scaled(make_resnet(block, unit=order)))
    assert count == MOVED[order][block]
    others = {op: n for op, n in operations(before).items() if op != "Mul"}
    assert {op: n for op, n in operations(after).items() if op != "Mul"} == others


def test_of_a_deeper_basic_net_all_units_that_keep_the_size_lose_theirs():
    # Nine units: the first one's BN is folded, and zero padding reads two others'.
    _, _, count = moved(scaled(perturbed(ResNetV2(20, input_shape=SHAPE, classes=7))))
    assert count == 9 - 1 - 2


@pytest.mark.parametrize(
    "shortcut",
    [pytest.param(name, marks=() if "gating" in name else pytest.mark.slow) for name in SHORTCUTS],
)
def test_any_shortcut_gets_the_same_signal(shortcut):
    moved(scaled(make_resnet("bottleneck", shortcut=shortcut)))


@pytest.mark.parametrize("value", [-0.5, 0.0, -1e-12])
def test_a_scale_that_is_not_positive_stays(value):
    assert moved(scaled(make_resnet("bottleneck"), value))[2] == 0


def test_a_tiny_scale_moves_and_one_whose_inverse_overflows_stays():
    assert moved(scaled(make_resnet("bottleneck"), 1e-12))[2] == 2
    assert moved(scaled(make_resnet("bottleneck"), 1e-40))[2] == 0


@pytest.mark.parametrize(("value", "count"), [(0.2, 2), (0.01, 0), (1e-12, 0)])
def test_for_float16_scales_must_not_be_small(value, count):
    model = scaled(make_resnet("bottleneck"), value)
    for variable in model.variables:
        if variable.name == "moving_variance":
            variable.assign(np.ones(variable.shape))
        elif variable.name == "gamma":
            variable.assign(np.maximum(variable, value))
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    step = move_scales(graph, "float16")
    assert step.description == f"moved {count} scales through ReLUs into convolutions"
    images = normalized_images()
    assert_same(run(step.graph, images), keras_outputs(model, images))


def net(*layers, gamma=2.0):
    model = make_net(chain(*layers))
    for variable in model.variables:
        if variable.name == "gamma":
            variable.assign(np.full(variable.shape, gamma))
    return model


def test_the_new_weights_are_those_of_the_formula():
    bn, conv = BatchNormalization(epsilon=0.01), Conv2D(4, 3)
    _, graph, count = moved(scaled(make_net(chain(bn, keras.layers.ReLU(), conv))))
    assert count == 1
    gamma, beta, mean, variance = (v.numpy().astype(np.float64) for v in bn.variables)
    scale = gamma / np.sqrt(variance + 0.01)
    [kernel] = (value for value in graph.weights.values() if value.ndim == 4)
    np.testing.assert_allclose(kernel, conv.kernel.numpy() * scale[:, None], rtol=1e-6)
    [shift] = (value for value in graph.weights.values() if value.shape == (3,))
    np.testing.assert_allclose(shift, beta / scale - mean, rtol=1e-5, atol=1e-6)


def test_a_strided_convolution_takes_it_through_its_padding():
    assert moved(net(BatchNormalization(), keras.layers.ReLU(), Conv2D(4, 3, strides=2)))[2] == 1


def test_a_kernel_that_others_read_too_stays_theirs():
    conv = Conv2D(3, 3)
    layers = [conv, keras.layers.ReLU(), BatchNormalization(), keras.layers.ReLU(), conv]
    before, after, count = moved(net(*layers))
    assert count == 1
    kernels = [[v for v in g.weights.values() if v.ndim == 4] for g in (before, after)]
    assert list(map(len, kernels)) == [1, 2]


def sums_relu_and_convolution(x):
    x = keras.layers.ReLU()(BatchNormalization()(x))
    return keras.layers.Add()([x, Conv2D(3, 3)(x)])


def activated(*layers):
    return chain(BatchNormalization(), *layers)


def reads_bn_twice(x):
    x = BatchNormalization()(x)
    return keras.layers.Add()([Conv2D(3, 3)(keras.layers.ReLU()(x)), x])


@pytest.mark.parametrize(
    "compute",
    [
        sums_relu_and_convolution,
        reads_bn_twice,
        chain(
            BatchNormalization(), keras.layers.ReLU(), keras.layers.MaxPooling2D(2), Conv2D(4, 3)
        ),
        chain(BatchNormalization(), keras.layers.ReLU(max_value=1.0), Conv2D(4, 3)),
        chain(BatchNormalization(), keras.layers.Activation("tanh"), Conv2D(4, 3)),
    ],
    ids=["a sum", "two readers", "pooling", "ReLU up to 1", "tanh"],
)
def test_where_anything_else_reads_it_the_scale_stays(compute):
    assert moved(scaled(make_net(compute)))[2] == 0
