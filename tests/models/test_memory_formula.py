"""The formula of training memory: values counted by hand, and how it grows."""

import dataclasses

import pytest

from keras_preact.models import describe

# Pixels and inner filters of the stages of a CIFAR net.
STAGES = [(32 * 32, 16), (16 * 16, 32), (8 * 8, 64)]


def net(depth, **options):
    return describe(depth, print_fn=None, **options)


def per_pixel(description):
    """(units, input, kept) of each run, in values for each pixel and inner filter."""
    assert [run.first for run in description.runs] == [f"stage{n}_unit2" for n in (1, 2, 3)]
    return {
        (run.units, run.input / (pixels * filters), run.kept / (pixels * filters))
        for run, (pixels, filters) in zip(description.runs, STAGES, strict=True)
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
        # The gate's gradient needs the residual that it scales.
        (20, {"shortcut": "exclusive_gating"}, 2, 1, 3),
        (20, {"shortcut": "constant_scaling"}, 2, 1, 2),
    ],
)
def test_a_unit_in_a_loop_keeps_its_input_and_the_convolutions_that_gradients_need(
    depth, options, units, entering, kept
):
    assert per_pixel(net(depth, **options)) == {(units, entering, kept)}


def test_units_that_differ_from_their_neighbours_are_in_no_loop():
    assert net(8).runs == ()
    # ResNet-18 has two units a stage, of which the first of its first stage shares its activation.
    assert net(18).runs == ()
    assert [run.units for run in net(50).runs] == [2, 3, 5, 2]


def test_activations_of_bottleneck_nets_follow_the_closed_formula_of_the_documentation():
    """Bytes a unit and image: 24, 16 and so on for each pixel and filter in float32."""
    for n in (18, 36, 111):
        described = net(9 * n + 2, block="bottleneck")
        pixels_times_filters = sum(pixels * filters for pixels, filters in STAGES)
        looped = sum(run.units * run.activations for run in described.runs)
        outside = described.activations - looped
        for batch_size, precision, size in ((32, "float32", 4), (128, "mixed_bfloat16", 2)):
            image = batch_size * size

            def activations(*remat):
                memory = described.training_memory(batch_size, precision, *remat)  # noqa: B023
                return memory.activations - image * outside  # noqa: B023

            statistics = 4 * (n - 1) * sum(2 * 6 * filters for _, filters in STAGES)
            assert activations() == (n - 1) * image * 6 * pixels_times_filters + statistics
            assert activations("unit") == (n - 1) * image * 4 * pixels_times_filters
            groups = -(-(n - 1) // 5)
            assert activations("group", 5) == groups * image * 4 * pixels_times_filters


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
    first = described.runs[0]
    plain, unit, five = (
        described.training_memory(8, "float32", *remat) for remat in ((), ("unit",), ("group", 5))
    )
    one = 8 * 4 * first.kept + 4 * first.statistics
    assert unit.workspace - plain.workspace == one
    assert five.workspace - plain.workspace == 5 * one
    # No group is larger than a run.
    assert described.training_memory(8, "float32", "group", 99).workspace == (
        plain.workspace + 17 * one
    )


def test_without_loops_it_is_what_tensorflows_gradients_need():
    described = net(20)
    memory = described.training_memory(16, loops=False)
    assert memory.activations == 16 * 4 * described.activations
    assert memory.workspace == 0


def test_weights_gradients_moments_and_averages_are_of_float32_in_any_precision():
    described = net(20)
    parameters, statistics = 4 * described.parameters, 4 * described.moving_statistics
    plain = described.training_memory(1, "mixed_bfloat16")
    adam = described.training_memory(1, "mixed_bfloat16", moments=2, averages=True)
    assert (plain.moments, adam.moments) == (parameters, 2 * parameters)
    assert (plain.averages, adam.averages) == (0, parameters + statistics)
    assert plain.gradients == parameters
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
