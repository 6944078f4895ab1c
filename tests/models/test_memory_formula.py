"""The formula of training memory: values counted by hand, and how it grows."""

import dataclasses

import pytest
import tensorflow as tf
from variants import ORDERS, PYRAMID, SHORTCUTS

from keras_preact.layers import BLOCKS, Convolution, ResidualUnit
from keras_preact.models import describe
from keras_preact.models.unit_graph import CONVOLUTIONS, INPUT, UnitGraph

# Pixels and inner filters of the stages of a CIFAR net.
STAGES = [(32 * 32, 16), (16 * 16, 32), (8 * 8, 64)]


def net(depth, **options):
    return describe(depth, print_fn=None, **options)


def loops(description):
    return [run for run in description.runs if run.units > 1]


def per_pixel(description):
    """(units, input, kept) of each loop, in values for each pixel and inner filter."""
    assert [run.first for run in loops(description)] == [f"stage{n}_unit2" for n in (1, 2, 3)]
    return {
        (run.units, run.input / (pixels * filters), run.kept / (pixels * filters))
        for run, (pixels, filters) in zip(loops(description), STAGES, strict=True)
    }


@pytest.mark.parametrize(
    ("depth", "options", "units", "entering", "kept"),
    [
        # Input and the first of two convolutions; the output of the second is only added.
        (20, {}, 2, 1, 2),
        (1202, {}, 199, 1, 2),
        # Four times as wide between units as inside; two of three convolutions.
        (164, {}, 17, 4, 6),
        (1001, {}, 110, 4, 6),
        (11, {"block": "single"}, 2, 1, 1),
        # BN or ReLU behind the last convolution needs its output.
        (20, {"unit": "original"}, 2, 1, 3),
        (20, {"unit": "bn_after_addition"}, 2, 1, 3),
        (20, {"unit": "relu_before_addition"}, 2, 1, 3),
        (20, {"unit": "relu_only_preactivation"}, 2, 1, 3),
        (164, {"unit": "original"}, 17, 4, 10),
        # A gate is a convolution; the gradient of this one needs the residual that it scales, too.
        (20, {"shortcut": "shortcut_only_gating"}, 2, 1, 3),
        (20, {"shortcut": "exclusive_gating"}, 2, 1, 4),
        (20, {"shortcut": "constant_scaling"}, 2, 1, 2),
    ],
)
def test_a_unit_in_a_loop_keeps_its_input_and_the_convolutions_that_gradients_need(
    depth, options, units, entering, kept
):
    assert per_pixel(net(depth, **options)) == {(units, entering, kept)}


COMBINATIONS = [
    *((block, unit, "identity") for block in BLOCKS for unit in [*ORDERS, PYRAMID]),
    *(("basic", "full_preactivation", shortcut) for shortcut in SHORTCUTS),
    *(("bottleneck", "original", shortcut) for shortcut in SHORTCUTS),
    ("basic", "original", "none"),
    ("basic", "bn_after_addition", "convolution"),
    ("basic", "full_preactivation", Convolution(batch_norm=True)),
]


@pytest.mark.parametrize(
    ("block", "unit", "shortcut"),
    COMBINATIONS,
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_values_kept_in_a_loop_are_those_that_loops_keep(block, unit, shortcut):
    depth = {"single": 11, "basic": 20, "bottleneck": 29}[block]
    last = loops(net(depth, block=block, unit=unit, shortcut=shortcut))[-1]
    layer = ResidualUnit(64, block=block, order=unit, shortcut=shortcut)
    images = tf.TensorSpec((1, 8, 8, layer.kind.output_channels(64)))
    layer.build(images.shape)
    graph = UnitGraph(layer, images, training=True, compiles=False)
    assert last.kept == sum(each.shape.num_elements() for each in graph.kept(CONVOLUTIONS))
    assert last.input == sum(each.shape.num_elements() for each in graph.kept(INPUT))


def test_units_that_differ_from_their_neighbours_are_in_no_loop():
    assert [run.units for run in net(8).runs] == [1, 1, 1]
    # ResNet-18 has two units a stage, and the first of its first stage shares its activation.
    assert [run.units for run in net(18).runs] == [1] * 8
    assert [run.units for run in net(50).runs] == [1, 2, 1, 3, 1, 5, 1, 2]


def test_activations_of_bottleneck_nets_follow_the_closed_formula_of_the_documentation():
    pixels_times_filters = sum(pixels * filters for pixels, filters in STAGES)
    assert pixels_times_filters == 28_672
    for n, k in ((18, 4), (36, 6), (111, 10)):
        described = net(9 * n + 2, block="bottleneck")
        for batch_size, precision, size in ((32, "float32", 4), (128, "mixed_bfloat16", 2)):
            image = batch_size * size

            def loops_keep(*remat):
                memory = described.training_memory(batch_size, precision, *remat)  # noqa: B023
                alone = sum(
                    run.input if remat else run.activations
                    for run in described.runs  # noqa: B023
                    if run.units == 1
                )
                around = sum(described.rows[i].activations for i in (0, -1, -2))  # noqa: B023
                return memory.activations - image * (alone + around)  # noqa: B023

            assert loops_keep() == 28_672 * 6 * image * (n - 1)
            assert loops_keep("unit") == 28_672 * 4 * image * (n - 1)
            groups = -(-(n - 1) // k)
            assert loops_keep("auto") == 28_672 * 4 * image * groups
            assert loops_keep("group", k) == 28_672 * 4 * image * groups


def test_recomputing_groups_takes_memory_like_the_square_root_of_the_depth():
    def activations(depth, remat):
        memory = net(depth, block="bottleneck").training_memory(128, remat=remat)
        return memory.activations + memory.workspace

    first, second = (activations(9 * n + 2, "auto") for n in (37, 145))
    assert second / first < 2.1
    first, second = (activations(9 * n + 2, "none") for n in (37, 145))
    assert second / first > 3.5


def test_a_group_holds_what_its_units_keep_while_it_is_in_the_backward_pass():
    described = net(164)
    first = loops(described)[0]
    unit, five = (
        described.training_memory(8, "float32", *remat) for remat in (("unit",), ("group", 5))
    )
    one, own = 8 * 4 * first.activations, 8 * 4 * first.kept
    assert five.workspace - unit.workspace == 5 * one - own
    # No group is larger than a row of equal units.
    largest = described.training_memory(8, "float32", "group", 99)
    assert largest.workspace - unit.workspace == 17 * one - own


def test_units_alone_keep_their_input_where_they_are_recomputed():
    described = net(8)
    stem, *_, head, logits = described.rows
    around = stem.activations + head.activations + logits.activations
    inputs = sum(run.input for run in described.runs)
    assert described.training_memory(1, remat="unit").activations == 4 * (around + inputs)
    assert described.training_memory(1).activations == 4 * described.activations


def test_without_loops_it_is_what_tensorflows_gradients_need():
    described = net(20)
    memory = described.training_memory(16, loops=False)
    assert memory.activations == 16 * 4 * described.activations


def test_weights_gradients_moments_and_averages_are_of_float32_in_any_precision():
    described = net(20)
    parameters, statistics = 4 * described.parameters, 4 * described.moving_statistics
    plain = described.training_memory(1, "mixed_bfloat16")
    adam = described.training_memory(1, "mixed_bfloat16", moments=2, averages=True)
    assert (plain.moments, adam.moments) == (parameters, 2 * parameters)
    assert (plain.averages, adam.averages) == (0, parameters + statistics)
    assert plain.gradients % parameters == adam.update % parameters == 0
    assert plain.weights >= parameters + statistics
    assert plain.total == sum(dataclasses.astuple(plain))


def test_describe_prints_the_memory_of_training_where_a_batch_size_is_given():
    printed = []
    describe(1001, batch_size=128, precision="mixed_bfloat16", print_fn=printed.append)
    _, table = printed
    head, *lines = table.splitlines()
    assert head.startswith("training, 128 images, mixed_bfloat16")
    assert head.split()[-3:] == ["remat=none", "remat=unit", "remat=auto"]
    assert [line.split()[0] for line in lines][-3:] == ["activations", "workspace", "total"]
    assert len({len(line) for line in (head, *lines)}) == 1
    quiet = []
    describe(20, print_fn=quiet.append)
    assert len(quiet) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "batch_size must be a whole number above 0. Received: batch_size=0"),
        ((1, "bfloat16"), "mixed_bfloat16"),
        ((1, "float32", "all"), "remat must be .*'all'"),
        ((1, "float32", "group"), "go together: .* remat='group', remat_units=None"),
        ((1, "float32", "none", 3), "go together: .* remat='none', remat_units=3"),
        ((1, "float32", "group", 0), "remat_units must be a whole number above 0"),
    ],
)
def test_what_has_no_memory_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        net(20).training_memory(*arguments)


def test_recomputation_without_loops_is_refused():
    with pytest.raises(ValueError, match="remat recomputes units in loops"):
        net(20).training_memory(1, remat="unit", loops=False)
