"""What is frozen stays as it is to the last bit; what learns slower is told by a formula."""

import numpy as np
import pytest
import tensorflow as tf
from small_steps import assert_same, everywhere, make, weights

import keras_preact
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.training import TrainConfig
from keras_preact.training.steps.bn_statistics import Recomputation, ReplicaStatistics
from keras_preact.training.steps.freezing import make_freezing, part_of, parts

PARTS = ("stem", "stage1", "stage2", "stage3", "head_bn", "logits")
LOWER = ("stem", "stage1")


def arrays(small):
    """Returns all values that a checkpoint would hold, as (group, path)."""
    statistics = ReplicaStatistics(small.state, small.strategy).gather()
    groups = small.state.to_arrays(small.done, statistics)
    return {(group, name): v for group, values in groups.items() for name, v in values.items()}


def part_in_checkpoint(name):
    """The part of a variable by its name in a checkpoint, where momentum has no slashes."""
    return next(part for part in PARTS if name.replace("/", "_").startswith(part))


def moved(before, after, groups=("model", "averages", "optimizer")):
    """Returns (group, part, whether of BN's statistics) of all values that differ."""
    return {
        (group, part_in_checkpoint(name), "moving" in name)
        for (group, name), value in before.items()
        if group in groups and name != "iteration" and not np.array_equal(value, after[group, name])
    }


def test_the_parts_of_a_network_hold_all_its_variables():
    for depth, options in ((8, {}), (18, {"unit": "original"}), (11, {"block": "bottleneck"})):
        config = TrainConfig(depth=depth, **options)
        network = keras_preact.ResNetV2(depth, **options)
        assert {part_of(v.path) for v in network.variables} == {*parts(config), "logits"}


@pytest.mark.parametrize(
    ("options", "statistics"),
    [
        ({"replicas": 1}, PARTS[2:5]),
        ({"replicas": 1, "freeze_bn": "none"}, PARTS[1:5]),
        ({"replicas": 1, "freeze_bn": "all"}, ()),
        ({"replicas": 2}, PARTS[2:5]),
        pytest.param(
            {"replicas": 2, "sync_bn": True, "gradient_accumulation_steps": 2},
            PARTS[2:5],
            marks=pytest.mark.slow,
        ),
        ({"replicas": 1, "xla": "on", "mixup_alpha": 0.2}, PARTS[2:5]),
        ({"replicas": 1, "precision": "mixed_float16", "on_device": False}, PARTS[2:5]),
        ({"replicas": 1, "optimizer": "lamb", "clip_norm": 1.0}, PARTS[2:5]),
    ],
    ids=["frozen_bn", "no_bn", "all_bn", "replicas", "sync_bn", "xla", "float16", "lamb"],
)
def test_frozen_weights_momentum_averages_and_statistics_stay_to_the_last_bit(options, statistics):
    small = make(freeze=LOWER, ema_decay=0.9, weight_decay=0.01, **options)
    before = arrays(small)
    small.take(3)
    ReplicaStatistics(small.state, small.strategy).merge()
    groups = ("model", "averages", "optimizer")
    expected = {(group, part, False) for group in groups for part in PARTS[2:]}
    expected |= {(group, part, True) for group in groups[:2] for part in statistics}
    assert moved(before, arrays(small)) == expected


def test_only_the_logits_learn_where_all_but_the_head_is_frozen():
    small = make(freeze=("all_but_head",))
    before = arrays(small)
    losses = small.take(4)["loss"]
    expected = {("model", "logits", False), ("optimizer", "logits", False)}
    assert moved(before, arrays(small)) == expected and losses[-1] < losses[0]


def test_frozen_bn_normalizes_as_in_inference():
    small = make(freeze=("all_but_head",), on_device=False, learning_rate=1e-9)
    images, labels = next(iter(small.batches))
    with small.state.in_network() as network:
        for layer in bn_layers(network):
            layer.moving_mean.assign(layer.moving_mean + 0.1)
        inputs = small.step.info.normalize(images)
        logits = network(inputs, training=False)
        layers = bn_layers(network)
    assert all(layer.keeps_statistics for layer in layers)
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    batch = iter(tf.data.Dataset.from_tensors((images, labels)).repeat())
    [[loss, *_]] = small.step(batch, 0)
    np.testing.assert_allclose(loss, tf.reduce_mean(expected), rtol=1e-5)


def gradient_operations(small):
    """Returns how many convolutions of a step are those of a backward pass."""
    graph = small.step._alone.get_concrete_function(
        small.state.rows.read(),
        next(iter(small.batches)),
        tf.constant(0, tf.int64),
        tf.constant([0.0, 0.0]),
    )
    # As it runs: without what nobody asks for.
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2 as frozen,
    )

    functions = frozen(graph, aggressive_inlining=True).graph.as_graph_def()
    return sum("Backprop" in node.op and "Conv" in node.op for node in functions.node)


def test_the_backward_pass_ends_above_the_frozen_parts():
    # The stem and three units of two convolutions: gradients of kernels, and of what goes in.
    options = {"unit_loops": "off", "on_device": False}
    whole = gradient_operations(make(**options))
    upper = gradient_operations(make(freeze=("stem", "stage1"), **options))
    head = gradient_operations(make(freeze=("all_but_head",), **options))
    assert (whole, upper, head) == (7 + 6, 4 + 4, 0)


def test_thawing_goes_on_as_if_the_parts_had_never_learned_before():
    # 1,437 images in steps of 32: epoch 0.1 begins after 5 steps, rounded up.
    small = make(freeze=LOWER, thaw_epoch=0.1, ema_decay=0.9)
    assert small.state.freezing.thaw_step == 5
    before = arrays(small)
    small.take(5)
    middle = arrays(small)
    assert ("model", "stem", False) not in moved(before, middle)
    small.take(1)
    after = arrays(small)
    assert {(group, part, False) for group in ("model", "averages") for part in PARTS} <= moved(
        middle, after
    )
    assert ("model", "stage1", True) in moved(middle, after)
    # The momentum of a thawed part begins at zero: its first step is plain descent.
    stem = "stem_conv/kernel"
    step = after["model", stem] - middle["model", stem]
    np.testing.assert_allclose(after["optimizer", "stem_conv_kernel_momentum"], step, atol=1e-6)


def test_going_back_before_the_thaw_freezes_again():
    small = make(freeze=LOWER, thaw_epoch=0.05)
    small.take(4)
    small.state.enter_phase_of(2)
    before = arrays(small)
    small.step(small.batches, 0)
    assert ("model", "stem", False) not in moved(before, arrays(small))


@pytest.mark.parametrize("decay_bn", [True, False])
def test_factors_are_those_of_the_formula(decay_bn):
    options = {"momentum": 0.0, "weight_decay": 0.01, "decay_bn": decay_bn}
    plain, small = make(**options), make(layer_decay=0.5, head_lr_multiplier=10.0, **options)
    before = weights(plain)
    plain.take(), small.take()
    steps, slower = weights(plain), weights(small)
    # Three units: the stem has all of them and the head above it.
    factors = {"stem_conv": 1 / 16, "stage1_unit1": 1 / 8, "stage2_unit1": 1 / 4}
    factors |= {"stage3_unit1": 1 / 2, "head_bn": 1, "logits": 10}
    for path, value in before.items():
        factor = factors[path.partition("/")[0]]
        expected = factor * (steps[path] - value)
        np.testing.assert_allclose(
            slower[path] - value, expected, rtol=1e-3, atol=2e-7, err_msg=path
        )


def test_a_plain_run_has_no_factors_masks_or_phases():
    state = make().state
    assert state.lines.factors is None and state.kept_statistics is None and state.trained.is_whole
    assert state.freezing.steps_left(0) == float("inf")


@pytest.mark.parametrize("ema_decay", [pytest.param(None, marks=pytest.mark.slow), 0.9])
def test_recomputed_statistics_leave_those_of_frozen_bn_alone(ema_decay):
    small = make(freeze=LOWER, thaw_epoch=0.05, ema_decay=ema_decay, on_device=False)
    small.take(1)
    recompute = Recomputation(small.state, small.step.info, small.strategy)
    group = "averages" if ema_decay else "model"
    for recomputed in ({"stage2", "stage3", "head_bn"}, {*PARTS[1:5]}):
        before = arrays(small)
        recompute(small.batches, 2)
        found = {part for _, part, is_statistic in moved(before, arrays(small), (group,))}
        assert found == recomputed
        small.take(3)  # to the other phase


def test_recomputed_statistics_above_frozen_bn_are_those_of_its_true_output():
    small = make(freeze=("stem", "stage1", "stage2"), on_device=False)
    small.take(2)
    batches = [next(small.batches) for _ in range(2)]
    with small.state.in_network() as network:
        inside = keras_preact.ResNetV2(8, input_shape=(8, 8, 1))
        inside.set_weights(network.get_weights())
    means = []
    for images, _ in batches:
        for layer in bn_layers(inside):
            layer.momentum, layer.keeps_statistics = (
                0.0,
                part_of(layer.gamma.path) in (*("stem", "stage1", "stage2"),),
            )
        inside(small.step.info.normalize(images), training=True)
        means.append(inside.get_layer("head_bn").moving_mean.numpy())
    Recomputation(small.state, small.step.info, small.strategy)(iter(batches), 2)
    own = everywhere(small, "non_trainable")["head_bn/moving_mean"][0]
    np.testing.assert_allclose(own, np.mean(means, axis=0), rtol=1e-4, atol=1e-6)


def test_parts_are_frozen_in_loops_as_outside_of_them():
    looped, alone = (make(depth=20, freeze=LOWER, unit_loops=loops) for loops in ("on", "off"))
    assert looped.state.function.stacks and not alone.state.function.stacks
    looped.take(2), alone.take(2)
    assert_same(weights(looped), weights(alone), rtol=1e-5, atol=1e-7)


def test_bn_of_all_parts_is_kept_after_the_thaw_where_it_is_frozen_everywhere():
    freezing = make_freezing(
        TrainConfig(depth=8, freeze=("stem",), thaw_epoch=1.0, freeze_bn="all"),
        1000,
        keras_preact.ResNetV2(8),
    )
    assert freezing.thawed.kept_bn == set(PARTS[:5]) and freezing.thawed.frozen == set()
