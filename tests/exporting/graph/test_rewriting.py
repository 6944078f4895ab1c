"""Rewriting all our networks, step by step, and the number of BNs that each can lose."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from tiny_nets import (
    FUSED_BN,
    SHAPE,
    assert_same,
    keras_outputs,
    make_net,
    make_resnet,
    normalized_images,
    operations,
    perturbed,
    run,
)
from variants import PYRAMID, SHORTCUTS

from keras_preact import ResNetV2
from keras_preact.exporting.graph import network, rewriting
from keras_preact.layers import BatchNormalization, Conv2D

BLOCKS = ("single", "basic", "bottleneck")
# BNs after a convolution in nets of three units, one in each stage, counted in figure 4 of
# "Identity Mappings in Deep Residual Networks": the stem's, those in residual functions,
# and in bottleneck nets those of the three projections, where the order normalizes them.
FOLDED = {
    "original": {"single": 1 + 3, "basic": 1 + 6, "bottleneck": 1 + 9 + 3},
    "bn_after_addition": {"single": 1, "basic": 1 + 3, "bottleneck": 1 + 6},
    "relu_before_addition": {"single": 1 + 3, "basic": 1 + 6, "bottleneck": 1 + 9 + 3},
    "relu_only_preactivation": {"single": 1 + 3, "basic": 1 + 6, "bottleneck": 1 + 9 + 3},
    "full_preactivation": {"single": 1, "basic": 1 + 3, "bottleneck": 1 + 6},
    "pyramid": {"single": 1 + 3, "basic": 1 + 6, "bottleneck": 1 + 9 + 3},
}
# BNs after an addition: those of three units, or of two units' entries and the head.
KEPT = {"bn_after_addition": 3, "full_preactivation": 3, "pyramid": 3}

ALL = list(itertools.product(FOLDED, SHORTCUTS, BLOCKS))
# Each order with each block, and each shortcut with each block.
COVERING = [
    (order, SHORTCUTS[(number + 2 * other) % len(SHORTCUTS)], block)
    for number, order in enumerate(FOLDED)
    for other, block in enumerate(BLOCKS)
]
OTHERS = [combination for combination in ALL if combination not in COVERING]


def count_bns(graph):
    return operations(graph).get(FUSED_BN, 0)


def check_network(order, shortcut, block):
    unit = PYRAMID if order == "pyramid" else order
    model = make_resnet(block, unit=unit, shortcut=shortcut)
    # As a shortcut of its own, a convolution replaces the projection and is not normalized.
    projections = FOLDED[order][block] >= 13 and shortcut == "convolution"
    folded, kept = FOLDED[order][block] - 3 * projections, KEPT.get(order, 0)
    assert sum(v.name == "gamma" for v in model.variables) == folded + kept

    traced = network.trace(model, SHAPE)
    *_, folding, last = rewriting.rewrite(traced)
    assert count_bns(traced) == folded + kept
    assert count_bns(folding.graph) == kept
    assert f"folded {folded} of {folded + kept} BNs" in folding.description
    assert f"replaced the other {kept} BNs" in last.description
    assert not operations(last.graph).keys() & {FUSED_BN, "Identity", "StopGradient"}
    images = normalized_images(2)
    assert_same(run(last.graph, images), keras_outputs(model, images))


@pytest.mark.parametrize(("order", "shortcut", "block"), COVERING)
def test_a_network_loses_the_bns_after_convolutions_and_computes_the_same(order, shortcut, block):
    check_network(order, shortcut, block)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "shortcut", "block"), OTHERS)
def test_so_do_all_other_networks(order, shortcut, block):
    check_network(order, shortcut, block)


def test_of_a_deeper_basic_net_each_unit_loses_its_inner_bn_and_the_first_its_entry_too():
    graph = rewriting.rewrite(network.trace(ResNetV2(20), (32, 32, 3)))
    assert "folded 10 of 19 BNs" in graph[2].description
    assert operations(graph[-1].graph)["Conv2D"] == 19


def test_the_imagenet_stem_folds_although_a_pooling_follows():
    model = ResNetV2(18, unit="original", input_shape=(32, 32, 3), classes=7, width_multiplier=0.1)
    *_, folding, last = rewriting.rewrite(network.trace(model, (32, 32, 3)))
    # BNs of the stem, two in each of eight units, and three in projections.
    assert "folded 20 of 20 BNs" in folding.description
    assert "Mul" not in operations(last.graph)


def test_the_keras_layout_keeps_its_biases_strides_and_zero_padded_pooling():
    options = {"layout": "keras", "stem": "imagenet", "width_multiplier": 0.1, "classes": 7}
    model = perturbed(ResNetV2(18, input_shape=(45, 40, 3), **options))
    images = np.random.default_rng(0).normal(size=(3, 45, 40, 3)).astype(np.float32)
    steps = rewriting.rewrite(network.trace(model, (45, 40, 3)))
    expected = keras_outputs(model, images)
    for step in steps:
        assert_same(run(step.graph, images), expected)


def test_every_step_computes_the_same_from_fewer_operations():
    model = make_resnet("bottleneck", shortcut="exclusive_gating")
    graph, images = network.trace(model, SHAPE), normalized_images()
    expected = keras_outputs(model, images)
    counts = [sum(operations(graph).values())]
    steps = rewriting.rewrite(graph)
    for step in steps[:3]:
        assert_same(run(step.graph, images), expected)
        counts.append(sum(operations(step.graph).values()))
    # A folded BN leaves a bias.
    assert counts[0] > counts[1] > counts[2] == counts[3]
    # The last step has a multiplication and an addition for each BN.
    assert_same(run(steps[-1].graph, images), expected)
    assert sum(operations(steps[-1].graph).values()) == counts[-1] + 3
    dropped = re.match(r"dropped (\d+) of (\d+) operations", steps[0].description)
    assert [int(number) for number in dropped.groups()] == [counts[0] - counts[1], counts[0]]


def test_nothing_is_left_of_weights_that_nothing_reads():
    model = make_resnet(shortcut="shortcut_only_gating")
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    placeholders = {node.name for node in graph.definition.node if node.op == "Placeholder"}
    assert placeholders == {graph.input, *graph.weights}
    # In the place of gamma, beta, mean and variance: a bias where they were folded, which is
    # in the stem and in each unit once, else a scale and a shift.
    filters = [16, 16, 32, 64]
    before = sum(v.numpy().size for v in model.variables)
    statistics = 4 * (16 + (16 + 32 + 64) + (16 + 32 + 64))
    after = before - statistics + sum(filters) + 2 * (16 + 32 + 64)
    assert sum(value.size for value in graph.weights.values()) == after
    assert {value.dtype for value in graph.weights.values()} == {np.dtype("float32")}


def test_a_folded_convolution_is_that_of_the_formula():
    conv = Conv2D(4, 3, use_bias=True)
    bn = BatchNormalization(epsilon=0.01)
    model = make_net(lambda x: bn(conv(x)))
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    assert operations(graph) == {"Conv2D": 1, "BiasAdd": 2, "Mean": 1, "MatMul": 1}
    kernel, bias, gamma, beta, mean, variance = (
        v.numpy().astype(np.float64)
        for v in (*conv.variables, bn.gamma, bn.beta, bn.moving_mean, bn.moving_variance)
    )
    scale = gamma / np.sqrt(variance + 0.01)
    [got_kernel] = (value for value in graph.weights.values() if value.ndim == 4)
    [got_bias] = (value for value in graph.weights.values() if value.shape == (4,))
    np.testing.assert_allclose(got_kernel, kernel * scale, rtol=1e-6)
    np.testing.assert_allclose(got_bias, (bias - mean) * scale + beta, rtol=1e-5, atol=1e-6)


def test_a_bn_that_stays_becomes_the_scale_and_the_shift_of_the_formula():
    bn = BatchNormalization(epsilon=0.01)
    model = make_net(bn)
    graph = rewriting.rewrite(network.trace(model, SHAPE))[-1].graph
    assert operations(graph) == {"Mul": 1, "AddV2": 1, "Mean": 1, "MatMul": 1, "BiasAdd": 1}
    gamma, beta, mean, variance = (v.numpy().astype(np.float64) for v in bn.variables)
    scale = gamma / np.sqrt(variance + 0.01)
    got = [value for value in graph.weights.values() if value.shape == (3,)]
    for expected in (scale, beta - mean * scale):
        assert any(np.allclose(value, expected, rtol=1e-6, atol=1e-7) for value in got)


def test_rewriting_leaves_the_graph_that_it_is_given_as_it_was():
    graph = network.trace(make_resnet(), SHAPE)
    before, weights = graph.definition.SerializeToString(deterministic=True), dict(graph.weights)
    copies = {name: value.copy() for name, value in weights.items()}
    first = rewriting.rewrite(graph)
    assert graph.definition.SerializeToString(deterministic=True) == before
    for name, value in copies.items():
        np.testing.assert_array_equal(graph.weights[name], value)
    again = rewriting.rewrite(first[-1].graph)[-1].graph
    assert operations(again) == operations(first[-1].graph)
    for name, value in first[-1].graph.weights.items():
        np.testing.assert_array_equal(again.weights[name], value)


def test_shapes_of_outputs_stay_known():
    graph = rewriting.rewrite(network.trace(make_resnet(), SHAPE))[-1].graph
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    assert imported.get_tensor_by_name(graph.outputs["logits"]).shape.as_list() == [None, 7]
    assert imported.get_tensor_by_name(graph.outputs["features"]).shape.as_list() == [None, 64]
