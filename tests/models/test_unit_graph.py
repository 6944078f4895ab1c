"""What units keep for the backward pass, counted by hand."""

import math

import pytest
import tensorflow as tf

from keras_preact.layers import ResidualUnit
from keras_preact.models.unit_graph import ALL, CONVOLUTIONS, INPUT, UnitGraph


def kept_values(keeps, filters=4, channels=16, **options):
    """The number of values that a unit keeps of one pixel."""
    unit = ResidualUnit(filters, **options)
    shape = (2, 8, 8, channels)
    unit.build(shape)
    graph = UnitGraph(unit, tf.TensorSpec(shape), training=True, compiles=False)
    tensors = graph.kept(keeps)
    # The others are statistics, a few numbers a channel.
    assert keeps == ALL or all(tensor.shape.rank == 4 for tensor in tensors)
    values = sum(math.prod(tensor.shape) for tensor in tensors if tensor.shape.rank == 4)
    return values // (2 * 8 * 8)


@pytest.mark.parametrize(
    ("options", "values"),
    [
        # The input, and the outputs of all convolutions but the last: nothing after it needs it.
        ({"block": "bottleneck"}, 16 + 4 + 4),
        ({"block": "bottleneck", "order": "relu_only_preactivation"}, 16 + 4 + 4 + 16),
        ({"block": "bottleneck", "order": "original"}, 16 + 4 + 4 + 16),
        ({"block": "basic", "filters": 16}, 16 + 16),
        ({"block": "basic", "filters": 16, "order": "original"}, 16 + 16 + 16),
        # BN after the addition reads the sum.
        ({"block": "basic", "filters": 16, "order": "bn_after_addition"}, 16 + 16 + 16),
        ({"block": "single", "filters": 16}, 16),
        # The gate.
        ({"block": "basic", "filters": 16, "shortcut": "shortcut_only_gating"}, 16 + 16 + 16),
        # A mask is drawn again.
        ({"block": "basic", "filters": 16, "shortcut": "dropout"}, 16 + 16),
        ({"block": "basic", "filters": 16, "stochastic_depth_rate": 0.5}, 16 + 16),
    ],
    ids=str,
)
def test_units_keep_their_input_and_the_outputs_of_convolutions(options, values):
    assert kept_values(CONVOLUTIONS, **options) == values


@pytest.mark.parametrize(
    ("options", "values"),
    [
        # The inputs of BN and of convolutions, which are the outputs of ReLU.
        ({"block": "bottleneck"}, 12 * 4),
        ({"block": "basic", "filters": 16}, 4 * 16),
    ],
    ids=str,
)
def test_units_of_a_group_keep_all_that_gradients_read(options, values):
    assert kept_values(ALL, **options) == values


@pytest.mark.parametrize("order", ["original", "full_preactivation"])
@pytest.mark.parametrize("shortcut", ["identity", "exclusive_gating"])
def test_units_that_are_computed_again_keep_their_input_alone(order, shortcut):
    options = {"block": "bottleneck", "order": order, "shortcut": shortcut}
    assert kept_values(INPUT, **options) == 16


def test_what_is_not_trained_keeps_nothing():
    unit = ResidualUnit(4)
    unit.build((2, 8, 8, 4))
    graph = UnitGraph(unit, tf.TensorSpec((2, 8, 8, 4)), training=False)
    assert graph.kept(None) == graph.kept(CONVOLUTIONS) == ()
