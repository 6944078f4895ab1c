"""The plan of a unit against the published figures, written out by hand."""

import pytest
from test_residual_unit import CASES, NORMALIZED_PROJECTIONS, PUBLISHED, make

from keras_preact.layers import ActivationOrder, UnitKind
from keras_preact.layers.activation_order import get


def words(operations):
    return [operation.name if operation.kind != "relu" else "relu" for operation in operations]


def convolutions(plan):
    """(filters, kernel size, strides) of each."""
    return [(op.filters, op.kernel_size, op.strides) for op in plan.residual if op.kind == "conv"]


@pytest.mark.parametrize(("order", "block"), PUBLISHED)
def test_the_operations_of_a_unit_are_the_published_ones(order, block):
    plan = UnitKind(block, get(order)).plan(input_channels=8, filters=8)
    parts = (plan.preactivation, ["|"], plan.residual, ["+"], plan.after_addition)
    program = [w for part in parts for w in (part if isinstance(part, list) else words(part))]
    assert " ".join(program) == PUBLISHED[order, block]


# "Identity Mappings", appendix, and "Deep Residual Learning", figure 5: 1x1, 3x3, 1x1, of which
# the last has four times the channels.
@pytest.mark.parametrize(
    ("kind", "arguments", "expected"),
    [
        (UnitKind("single"), (16, 16), [(16, 3, 1)]),
        (UnitKind("basic"), (16, 32, 2), [(32, 3, 2), (32, 3, 1)]),
        (UnitKind("basic", strided_convolution=2), (16, 32, 2), [(32, 3, 1), (32, 3, 2)]),
        (UnitKind("bottleneck"), (64, 16), [(16, 1, 1), (16, 3, 1), (64, 1, 1)]),
        (UnitKind("bottleneck"), (64, 32, 2), [(32, 1, 2), (32, 3, 1), (128, 1, 1)]),
        (
            UnitKind("bottleneck", strided_convolution=2),
            (64, 32, 2),
            [(32, 1, 1), (32, 3, 2), (128, 1, 1)],
        ),
    ],
)
def test_every_convolution_has_its_filters_kernel_size_and_strides(kind, arguments, expected):
    plan = kind.plan(*arguments)
    assert convolutions(plan) == expected
    assert plan.output_channels == kind.output_channels(arguments[1]) == expected[-1][0]


@pytest.mark.parametrize(
    ("input_channels", "strides", "first_in_network", "changes", "shares"),
    [
        (64, 1, False, False, False),
        (64, 1, True, False, True),
        (16, 1, False, True, True),
        (64, 2, False, True, True),
    ],
)
def test_the_first_unit_and_those_that_change_dimensions_share_the_preactivation(
    input_channels, strides, first_in_network, changes, shares
):
    plan = UnitKind("bottleneck").plan(input_channels, 16, strides, first_in_network)
    assert (plan.changes_dimensions, plan.shares_preactivation) == (changes, shares)
    assert bool(plan.projection) == changes


@pytest.mark.parametrize("order", sorted({order for order, _ in PUBLISHED}))
def test_a_projection_is_normalized_where_the_residual_is(order):
    plan = UnitKind("basic", get(order)).plan(16, 32, 2)
    expected = ["projection_conv", "projection_bn"][: 1 + (order in NORMALIZED_PROJECTIONS)]
    assert words(plan.projection) == expected
    conv = plan.projection[0]
    assert (conv.filters, conv.kernel_size, conv.strides) == (32, 1, 2)


def test_zero_padding_is_a_projection_without_convolution():
    [padding] = UnitKind("basic", projection="zero_pad").plan(16, 32, 2).projection
    assert (padding.kind, padding.name) == ("zero_pad", "projection")
    assert (padding.filters, padding.strides) == (32, 2)


def test_a_shortcut_that_changes_dimensions_itself_needs_no_projection():
    plan = UnitKind("basic", matches_dimensions=True).plan(16, 32, 2)
    assert plan.projection == ()
    assert plan.changes_dimensions and plan.shares_preactivation


def test_batch_norm_on_both_sides_of_a_convolution_has_two_names():
    order = ActivationOrder("bn conv bn", "bn relu conv bn", "conv bn relu")
    plan = UnitKind("bottleneck", order).plan(8, 2)
    residual = "conv1 bn1 bn2 relu conv2 bn2_after conv3 bn3 relu"
    assert (words(plan.preactivation), words(plan.residual)) == (["preact_bn"], residual.split())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("block", ["single", "basic", "bottleneck"])
def test_a_unit_is_built_as_its_plan_says(block, case):
    if (block, case) == ("single", "halves_in_the_second_convolution"):
        pytest.skip("a one-layer unit has no second convolution")
    unit = make(block, **CASES[case])
    unit.build((None, 6, 7, 8))
    paths = (unit.preactivation, unit.residual_function, unit.match, unit.after_addition)
    built = [[getattr(layer, "name", "relu") for layer in path] for path in paths]
    plan = unit.plan
    assert built == [
        words(part)
        for part in (plan.preactivation, plan.residual, plan.projection, plan.after_addition)
    ]
    assert unit.compute_output_shape((None, 6, 7, 8))[-1] == plan.output_channels
