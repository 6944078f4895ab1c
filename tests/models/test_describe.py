"""The closed formulas against published counts and against built networks."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from variants import ORDERS, PYRAMID, SHORTCUTS

from keras_preact.layers import Convolution, Identity, Shortcut
from keras_preact.layers.batch_norm import traced_for_xla
from keras_preact.models import ResNetV2, describe

# Trainable parameters of the published nets with 1000 classes (ImageNet depths) or 10.
PUBLISHED_PARAMETERS = {
    18: 11_687_720,
    34: 21_795_880,
    50: 25_549_352,
    101: 44_541_480,
    152: 60_185_128,
    200: 64_666_152,
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
    164: 1_703_258,
    1001: 10_327_706,
}
# Moving statistics of Keras' and TensorFlow's own nets of these depths.
PUBLISHED_STATISTICS = {
    18: 7_808,
    34: 15_232,
    50: 45_440,
    101: 97_664,
    152: 143_744,
    200: 168_320,
    20: 1_376,
    110: 8_096,
    164: 24_224,
    1001: 149_216,
}
# Torchvision's nets, of original units with BN on the projections.
TORCHVISION_PARAMETERS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}
# In millions, as many digits as are known. Of 1001 layers by hand: 0.44 in the stem, 494.93 in
# the first stage, 496.24 in each of the others.
PUBLISHED_MULTIPLY_ADDS = {
    20: ("40.55", 2),
    56: ("125.49", 2),
    110: ("252.89", 2),
    164: ("244.5", 1),
    1001: ("1487.85", 2),
    50: ("4089", 0),
    101: ("7801", 0),
    152: ("11514", 0),
    200: ("15007", 0),
}


def quietly(depth, **arguments):
    return describe(depth, print_fn=None, **arguments)


@pytest.mark.parametrize("depth", PUBLISHED_PARAMETERS)
def test_parameters_of_a_published_net_are_the_published_ones(depth):
    assert quietly(depth).parameters == PUBLISHED_PARAMETERS[depth]


@pytest.mark.parametrize("depth", PUBLISHED_STATISTICS)
def test_moving_statistics_of_a_published_net_are_the_published_ones(depth):
    assert quietly(depth).moving_statistics == PUBLISHED_STATISTICS[depth]


@pytest.mark.parametrize("depth", TORCHVISION_PARAMETERS)
def test_original_nets_have_the_parameters_of_torchvisions(depth):
    assert quietly(depth, unit="original").parameters == TORCHVISION_PARAMETERS[depth]


@pytest.mark.parametrize("depth", PUBLISHED_MULTIPLY_ADDS)
def test_multiply_adds_of_a_published_net_are_the_published_ones(depth):
    figure, digits = PUBLISHED_MULTIPLY_ADDS[depth]
    assert f"{quietly(depth).multiply_adds / 1e6:.{digits}f}" == figure


@pytest.mark.parametrize("depth", [164, 1001])
def test_a_hundred_classes_add_23130_parameters_to_the_bottleneck_nets_of_cifar(depth):
    more = quietly(depth, classes=100).parameters - quietly(depth).parameters
    assert more == 90 * (256 + 1) == 23_130


def built(depth, block, **arguments):
    """The description, and the rows it should have, by name, from the layers of a built model."""
    arguments = {"block": block, "input_shape": (8, 8, 3), "width_multiplier": 0.25, **arguments}
    model = ResNetV2(depth, **arguments)
    rows = {}
    for layer in model.layers:
        name = layer.name
        if name in ("images", "avg_pool"):
            continue
        # The stem and the head are several layers each.
        prefix = name.partition("_")[0]
        row = prefix if prefix in ("stem", "head") else name
        _, parameters, statistics = rows.get(row, (None, 0, 0))
        # The state of dropout's random numbers is no moving statistic.
        moving = [v for v in layer.non_trainable_variables if "seed" not in v.path]
        rows[row] = (
            tuple(layer.output.shape[1:]),
            parameters + sum(int(np.prod(v.shape)) for v in layer.trainable_variables),
            statistics + sum(int(np.prod(v.shape)) for v in moving),
        )
    return quietly(depth, **arguments), rows


def assert_agrees(description, rows):
    described = {
        row.name: (row.output_shape, row.parameters, row.moving_statistics)
        for row in description.rows
    }
    assert described == rows


@pytest.mark.parametrize(("depth", "block"), [(5, "single"), (8, "basic"), (11, "bottleneck")])
@pytest.mark.parametrize("shortcut", (*SHORTCUTS, "none"))
@pytest.mark.parametrize("unit", ORDERS)
def test_the_description_agrees_row_by_row_with_the_built_network(unit, shortcut, depth, block):
    assert_agrees(*built(depth, block, unit=unit, shortcut=shortcut))


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 18, "input_shape": (37, 50, 1)},
        {"depth": 50, "unit": "original", "projection": "zero_pad"},
        {"depth": 8, "unit": PYRAMID},
        {"depth": 11, "unit": PYRAMID, "projection": "convolution", "classes": 7},
        {"depth": 8, "projection": "convolution", "include_top": False},
        {"depth": 11, "shortcut": Convolution(batch_norm=True)},
        {"depth": 8, "width_multiplier": 1.3},
    ],
)
def test_the_description_agrees_where_other_arguments_are_given(arguments):
    assert_agrees(*built(block=None, **arguments))


def test_multiply_adds_are_those_of_convolutions_and_logits_counted_by_hand():
    description = quietly(5, block="single", input_shape=(8, 8, 3), projection="convolution")
    assert {row.name: row.multiply_adds for row in description.rows} == {
        "stem": 64 * 9 * 3 * 16,
        "stage1_unit1": 64 * 9 * 16 * 16,
        "stage2_unit1": 16 * (9 * 16 * 32 + 16 * 32),
        "stage3_unit1": 4 * (9 * 32 * 64 + 32 * 64),
        "head": 0,
        "logits": 64 * 10,
    }


def test_a_gate_costs_a_1x1_convolution_of_the_matched_signal():
    gated, plain = (
        quietly(5, block="single", input_shape=(8, 8, 3), shortcut=name)
        for name in ("shortcut_only_gating", "identity")
    )
    sizes = [(64, 16), (16, 32), (4, 64)]
    extra = sum(pixels * channels**2 for pixels, channels in sizes)
    assert gated.multiply_adds - plain.multiply_adds == extra


def kept_in_the_graph(model):
    """Values of one image that the backward pass takes from the forward pass, in the graph."""
    graph = tf.Graph()
    with graph.as_default():
        images = tf.compat.v1.placeholder(tf.float32, (1, *model.input_shape[1:]))
        weights = [tf.zeros(v.shape, v.dtype) for v in model.trainable_variables]
        statistics = [tf.zeros(v.shape, v.dtype) for v in model.non_trainable_variables]
        with traced_for_xla(False):
            logits, _ = model.stateless_call(weights, statistics, images, training=True)
        forward = set(graph.get_operations())
        tf.gradients(logits, weights)
        backward = [op for op in graph.get_operations() if op not in forward]
    kept = {
        tensor.ref(): tensor.shape.num_elements()
        for op in backward
        if op.type not in ("Shape", "ShapeN", "ZerosLike")
        for tensor in op.inputs
        # Signals alone: weights do not depend on the placeholder.
        if tensor.op in forward and tensor.shape.rank == 4 and depends(tensor.op, images.op)
    }
    return sum(kept.values())


@functools.cache
def depends(operation, other):
    return operation is other or any(depends(tensor.op, other) for tensor in operation.inputs)


@pytest.mark.parametrize(("depth", "block"), [(8, "single"), (14, "basic"), (20, "bottleneck")])
@pytest.mark.parametrize("unit", (*ORDERS, PYRAMID))
def test_activations_are_most_of_what_the_backward_pass_takes_and_never_more(unit, depth, block):
    options = {"block": block, "unit": unit, "input_shape": (16, 16, 3)}
    kept = kept_in_the_graph(ResNetV2(depth, **options))
    # The padding of strided convolutions is left out.
    assert 0.7 * kept <= quietly(depth, **options).activations <= kept


@pytest.mark.parametrize("shortcut", (*SHORTCUTS, "none", Convolution(batch_norm=True)))
@pytest.mark.parametrize("unit", ["original", "relu_before_addition", "full_preactivation"])
def test_with_other_shortcuts_activations_are_never_more_either(unit, shortcut):
    options = {"unit": unit, "shortcut": shortcut, "input_shape": (16, 16, 3)}
    kept = kept_in_the_graph(ResNetV2(14, **options))
    assert 0.3 * kept <= quietly(14, **options).activations <= kept


@pytest.mark.parametrize("depth", [18, 50])
def test_activations_are_those_of_the_stem_for_imagenet_too(depth):
    options = {"input_shape": (64, 64, 3), "width_multiplier": 0.25}
    kept = kept_in_the_graph(ResNetV2(depth, **options))
    assert 0.85 * kept <= quietly(depth, **options).activations <= kept


def test_activations_grow_with_the_pixels():
    small, large = (quietly(20, input_shape=(size, size, 3)).activations for size in (16, 64))
    assert large == 16 * small


def test_the_table_is_printed_once_with_the_totals_last():
    printed = []
    description = describe(20, print_fn=printed.append)
    assert printed == [str(description)]
    lines = printed[0].splitlines()
    header = "layer  output shape  parameters  statistics  multiply-adds"
    assert lines[0].split() == header.split()
    assert [line.split()[0] for line in lines[1:3]] == ["stem", "stage1_unit1"]
    assert lines[-1].split()[:3] == ["total", "269,722", "1,376"]
    assert len({len(line) for line in lines}) == 1


class Own(Shortcut):
    def call(self, x, residual):
        return x - residual


class Halved(Identity):
    """Looks like an identity, but a subclass may compute anything."""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (None, None, 3)}, r"Received: input_shape=\(None, None, 3\)"),
        ({"input_shape": (32, 32)}, r"Received: input_shape=\(32, 32\)"),
        ({"unit": lambda **_: None}, "no formula for a unit factory"),
        ({"shortcut": Own()}, "no formula for the shortcut Own"),
        ({"shortcut": Halved()}, "no formula for the shortcut Halved"),
        ({"shortcut": "identiti"}, "Did you mean 'identity'"),
        ({"unit": "orignal"}, "Did you mean 'original'"),
        ({"depth": 21}, "Received: depth=21"),
        ({"depth": 2147483642}, "at most .* units.* Received: depth=2147483642"),
        ({"depth": 8, "width_multiplier": 1e308}, r"Received: width_multiplier=1e\+308"),
    ],
)
def test_units_and_shortcuts_without_a_formula_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        quietly(**{"depth": 8, **arguments})
