"""Units, filters and strides by depth, and the errors of a depth that does not fit."""

import sys

import pytest

from keras_preact.layers import ORDERS
from keras_preact.models import ResNetV2
from keras_preact.models.architectures import resolve

PUBLISHED = {
    # "Deep Residual Learning", table 1, and "Identity Mappings", section 5, for ImageNet;
    # sections 4.2 and 3 for CIFAR, where (depth - 2) / 6 or / 9 units stand in each stage.
    18: ("imagenet", "basic", (2, 2, 2, 2)),
    34: ("imagenet", "basic", (3, 4, 6, 3)),
    50: ("imagenet", "bottleneck", (3, 4, 6, 3)),
    101: ("imagenet", "bottleneck", (3, 4, 23, 3)),
    152: ("imagenet", "bottleneck", (3, 8, 36, 3)),
    200: ("imagenet", "bottleneck", (3, 24, 36, 3)),
    20: ("cifar", "basic", (3, 3, 3)),
    32: ("cifar", "basic", (5, 5, 5)),
    44: ("cifar", "basic", (7, 7, 7)),
    56: ("cifar", "basic", (9, 9, 9)),
    110: ("cifar", "basic", (18, 18, 18)),
    1202: ("cifar", "basic", (200, 200, 200)),
    164: ("cifar", "bottleneck", (18, 18, 18)),
    1001: ("cifar", "bottleneck", (111, 111, 111)),
}


def units_of(depth):
    architecture = resolve(depth)
    return list(architecture.units(architecture.unit_kind()))


@pytest.mark.parametrize("depth", PUBLISHED)
def test_a_published_depth_gives_the_published_stem_block_and_units(depth):
    plan = resolve(depth)
    assert (plan.stem, plan.block, plan.stage_units) == PUBLISHED[depth]
    # Every convolution of the units, the stem's, and the logits.
    convolutions = {"basic": 2, "bottleneck": 3}[plan.block]
    assert sum(plan.stage_units) * convolutions + 2 == plan.depth == depth


@pytest.mark.parametrize(
    ("depth", "block", "units_in_a_stage"),
    [(8, "basic", 1), (11, "bottleneck", 1), (14, "basic", 2), (29, "bottleneck", 3)],
)
def test_a_depth_of_one_formula_needs_no_block(depth, block, units_in_a_stage):
    plan = resolve(depth)
    assert (plan.stem, plan.block, plan.stage_units) == ("cifar", block, (units_in_a_stage,) * 3)


@pytest.mark.parametrize(
    ("block", "units_in_a_stage"), [("single", 36), ("basic", 18), ("bottleneck", 12)]
)
def test_110_layers_can_be_made_of_every_block(block, units_in_a_stage):
    assert resolve(110, block=block).stage_units == (units_in_a_stage,) * 3


def test_50_layers_with_the_cifar_stem_are_a_cifar_net():
    plan = resolve(50, stem="cifar", block="basic")
    assert plan.stage_units == (8, 8, 8)
    assert plan.default_input_shape == (32, 32, 3)
    assert plan.classes(None) == 10


@pytest.mark.parametrize(
    ("depth", "stem_filters", "stage_filters"),
    [(20, 16, (16, 32, 64)), (164, 16, (16, 32, 64)), (50, 64, (64, 128, 256, 512))],
)
def test_filters_double_from_stage_to_stage(depth, stem_filters, stage_filters):
    plan = resolve(depth)
    assert (plan.stem_filters, plan.stage_filters) == (stem_filters, stage_filters)


@pytest.mark.parametrize(
    ("multiplier", "stem_filters", "stage_filters"),
    [(2, 32, (32, 64, 128)), (0.25, 4, (4, 8, 16)), (1.3, 21, (21, 42, 83)), (0.01, 1, (1, 1, 1))],
)
def test_a_width_multiplier_scales_all_filters_and_leaves_at_least_one(
    multiplier, stem_filters, stage_filters
):
    plan = resolve(20, width_multiplier=multiplier)
    assert (plan.stem_filters, plan.stage_filters) == (stem_filters, stage_filters)


@pytest.mark.parametrize("depth", [18, 50, 20, 164])
def test_the_first_unit_of_every_stage_but_the_first_halves_the_image(depth):
    units = units_of(depth)
    halving = [unit.name for unit in units if unit.strides == 2]
    stages = {18: "234", 50: "234", 20: "23", 164: "23"}[depth]
    assert halving == [f"stage{stage}_unit1" for stage in stages]
    assert {unit.strides for unit in units} == {1, 2}
    assert [unit.name for unit in units if unit.first_in_network] == ["stage1_unit1"]


def test_units_count_from_one_in_every_stage():
    assert [unit.name for unit in units_of(14)] == [
        "stage1_unit1",
        "stage1_unit2",
        "stage2_unit1",
        "stage2_unit2",
        "stage3_unit1",
        "stage3_unit2",
    ]


@pytest.mark.parametrize(
    ("depth", "block", "strided_convolution", "projection"),
    [
        # ImageNet's bottlenecks stride in the 3x3, CIFAR's in the first 1x1: the authors' code.
        (50, None, 2, "convolution"),
        (164, None, 1, "convolution"),
        (18, None, 1, "convolution"),
        (20, None, 1, "zero_pad"),
        (110, "single", 1, "zero_pad"),
    ],
)
def test_stride_and_projection_are_those_of_the_authors(
    depth, block, strided_convolution, projection
):
    kind = resolve(depth, block=block).unit_kind()
    assert kind.strided_convolution == strided_convolution
    assert kind.projection == projection


# "Deep Residual Learning", table 1 and section 4.2; figure 1(b) of "Identity Mappings" has the
# stem's BN and ReLU in the first unit.
STEMS = {
    (18, "original"): "stem_conv 64 7 2 | stem_bn | stem_relu | stem_pool 3 2",
    (50, "full_preactivation"): "stem_conv 64 7 2 | stem_pool 3 2",
    (20, "original"): "stem_conv 16 3 1 | stem_bn | stem_relu",
    (20, "relu_only_preactivation"): "stem_conv 16 3 1 | stem_bn",
    (164, "full_preactivation"): "stem_conv 16 3 1",
}


@pytest.mark.parametrize(("depth", "order"), STEMS)
def test_the_stem_is_the_published_one(depth, order):
    parts = [
        (op.name, op.filters, op.kernel_size, op.strides if op.kernel_size else None)
        for op in resolve(depth).stem_operations(ORDERS[order])
    ]
    spelled = " | ".join(" ".join(str(v) for v in part if v is not None) for part in parts)
    assert spelled == STEMS[depth, order]


def test_only_preactivation_units_are_followed_by_one_more_activation():
    heads = {name: resolve(20).head_operations(order) for name, order in ORDERS.items()}
    names = {name: [op.name for op in head] for name, head in heads.items() if head}
    assert names == {
        "relu_only_preactivation": ["head_relu"],
        "full_preactivation": ["head_bn", "head_relu"],
    }


FORMULAS = r"3n\+2 \(single\), 6n\+2 \(basic\), 9n\+2 \(bottleneck\), n from 1"
IMAGENET = "18, 34, 50, 101, 152, 200"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # No formula fits: the rule, what was received, the nearest that fit.
        (
            {"depth": 21},
            rf"{FORMULAS}; with stem='imagenet' one of {IMAGENET}\. "
            r"Received: depth=21\. Nearest for basic units: 20 and 26",
        ),
        ({"depth": 3}, r"Received: depth=3\. Nearest for basic units: 8\."),
        (
            {"depth": 18, "stem": "cifar"},
            rf"{FORMULAS}.*Received: depth=18\. Nearest .* 14 and 20",
        ),
        # Several formulas fit, or only that of one-layer units, which must be asked for.
        (
            {"depth": 38},
            rf"{FORMULAS}\. depth=38 needs .*block='basic' or block='bottleneck'",
        ),
        ({"depth": 17}, rf"{FORMULAS}\. depth=17 needs block='single'"),
        # The block contradicts the depth.
        (
            {"depth": 32, "block": "bottleneck"},
            r"Received: depth=32 with block='bottleneck'\. Nearest for bottleneck units: 29 and 38",
        ),
        (
            {"depth": 50, "block": "basic"},
            r"depth=50 with stem='imagenet' is a net of bottleneck units\. "
            r"Received: block='basic'",
        ),
        # The stem contradicts the depth.
        (
            {"depth": 20, "stem": "imagenet"},
            rf"depth with stem='imagenet' must be one of {IMAGENET}\. Received: depth=20",
        ),
        # Not even a depth.
        ({"depth": 20.0}, r"depth must be a whole number\. Received: depth=20\.0"),
        ({"depth": True}, r"depth must be a whole number\. Received: depth=True"),
        ({"depth": 2}, r"Received: depth=2\."),
        ({"depth": -4}, r"Received: depth=-4\."),
        # Unknown names.
        ({"depth": 20, "stem": "imagnet"}, r"stem='imagnet'\. Did you mean 'imagenet'"),
        ({"depth": 20, "block": "basik"}, r"block='basik'\. Did you mean 'basic'"),
        (
            {"depth": 20, "width_multiplier": 0},
            r"width_multiplier must be above 0\. Received: width_multiplier=0",
        ),
    ],
)
def test_an_error_states_the_rule_and_what_was_received(arguments, message):
    with pytest.raises(ValueError, match=message):
        resolve(**arguments)


@pytest.mark.parametrize(
    ("block", "depth"), [("single", 902), ("basic", 1802), ("bottleneck", 2702)]
)
def test_as_many_units_as_keras_can_follow_are_allowed_and_no_more(block, depth):
    units = sys.getrecursionlimit() - 100
    assert units == 900, "the depths above are of Python's default"
    assert sum(resolve(depth, block=block).stage_units) == units
    layers = {"single": 1, "basic": 2, "bottleneck": 3}[block]
    deeper = depth + 3 * layers
    message = f"at most 900 units.*getrecursionlimit.*depth={deeper}, of 903 {block} units"
    with pytest.raises(ValueError, match=message):
        resolve(deeper, block=block)


@pytest.fixture
def calls_allowed():
    limit = sys.getrecursionlimit()
    yield sys.setrecursionlimit
    sys.setrecursionlimit(limit)


def test_keras_can_follow_as_many_units_as_are_allowed(calls_allowed):
    calls_allowed(400)
    model = ResNetV2(302, block="single", input_shape=(4, 4, 1), width_multiplier=0.01)
    assert sum("unit" in layer.name for layer in model.layers) == 300


def test_who_lets_python_call_deeper_may_have_more_units(calls_allowed):
    calls_allowed(sys.getrecursionlimit() + 3)
    assert sum(resolve(905, block="single").stage_units) == 903


def test_a_width_that_no_tensor_can_have_is_refused():
    widest = resolve(11, width_multiplier=2**31 // 256 - 1)
    assert 4 * widest.stage_filters[-1] < 2**31
    for multiplier in (2**31 // 256 + 1, 1e308, float("inf")):
        with pytest.raises(ValueError, match="width_multiplier must be at most 8388608 with"):
            resolve(11, width_multiplier=multiplier)
