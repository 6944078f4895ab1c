"""Devices, strategy, precision and XLA, rule by rule."""

import dataclasses

import pytest
import tensorflow as tf

from keras_preact.support.machine import has_bfloat16
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.cluster import Cluster
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan

PASCAL, VOLTA, TURING, AMPERE, HOPPER = (6, 1), (7, 0), (7, 5), (8, 0), (9, 0)
CPU = Machine()
ONE = Machine((AMPERE,))
FOUR = Machine((AMPERE, HOPPER, AMPERE, HOPPER))
PAIR = Cluster(("a:2222", "b:2222"), 1)


def decided(machine=CPU, cluster=None, **options):
    return make_compute_plan(TrainConfig(**{"depth": 20, **options}), machine, cluster)


@pytest.mark.parametrize(
    ("machine", "options", "strategy", "devices"),
    [
        (CPU, {}, "one_device", ["CPU:0"]),
        (ONE, {}, "one_device", ["GPU:0"]),
        (FOUR, {}, "mirrored", ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]),
        # The first of several, where one is enough.
        (FOUR, {"strategy": "one_device"}, "one_device", ["GPU:0"]),
        (CPU, {"strategy": "one_device"}, "one_device", ["CPU:0"]),
        (FOUR, {"strategy": "mirrored"}, "mirrored", ["GPU:0", "GPU:1", "GPU:2", "GPU:3"]),
        # A number of devices: GPUs where there are any, else parts of the CPU.
        (FOUR, {"devices": "2"}, "mirrored", ["GPU:0", "GPU:1"]),
        (FOUR, {"devices": "1"}, "one_device", ["GPU:0"]),
        (CPU, {"devices": "1"}, "one_device", ["CPU:0"]),
        (CPU, {"devices": "4"}, "mirrored", ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]),
        (CPU, {"devices": "2", "strategy": "mirrored"}, "mirrored", ["CPU:0", "CPU:1"]),
        # Names, in any case, in the order given.
        (FOUR, {"devices": "gpu:3, GPU:1"}, "mirrored", ["GPU:3", "GPU:1"]),
        (FOUR, {"devices": "GPU:2"}, "one_device", ["GPU:2"]),
        (FOUR, {"devices": "GPU:2", "strategy": "one_device"}, "one_device", ["GPU:2"]),
        (FOUR, {"devices": "CPU"}, "one_device", ["CPU:0"]),
        # Parts of the CPU, on any machine.
        (CPU, {"devices": "CPU:0,CPU:1"}, "mirrored", ["CPU:0", "CPU:1"]),
        (ONE, {"devices": "cpu:0, cpu:1"}, "mirrored", ["CPU:0", "CPU:1"]),
        (FOUR, {"devices": "CPU:0"}, "one_device", ["CPU:0"]),
        (CPU, {"devices": "cpu"}, "one_device", ["CPU:0"]),
    ],
)
def test_the_strategy_follows_from_the_devices(machine, options, strategy, devices):
    plan = decided(machine, **options)
    assert (plan.strategy, list(plan.devices)) == (strategy, devices)
    assert (plan.workers, plan.replicas) == (1, len(devices))


@pytest.mark.parametrize(
    ("machine", "options", "devices", "replicas"),
    [
        (CPU, {}, ["CPU:0"], 2),
        (CPU, {"strategy": "multi_worker"}, ["CPU:0"], 2),
        (FOUR, {}, ["GPU:0", "GPU:1", "GPU:2", "GPU:3"], 8),
        (FOUR, {"devices": "3", "global_batch_size": 12}, ["GPU:0", "GPU:1", "GPU:2"], 6),
        (FOUR, {"devices": "cpu"}, ["CPU:0"], 2),
    ],
)
def test_several_workers_train_together(machine, options, devices, replicas):
    plan = decided(machine, PAIR, **options)
    assert (plan.strategy, list(plan.devices)) == ("multi_worker", devices)
    assert (plan.workers, plan.replicas) == (2, replicas)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ((AMPERE,), "mixed_bfloat16"),
        ((HOPPER, AMPERE), "mixed_bfloat16"),
        ((TURING,), "mixed_float16"),
        ((VOLTA, HOPPER), "mixed_float16"),
        ((PASCAL,), "float32"),
        ((PASCAL, HOPPER), "float32"),
        ((None,), "float32"),
        ((None, HOPPER), "float32"),
        ((), "float32"),
    ],
)
def test_the_precision_follows_from_the_weakest_device(gpus, expected):
    assert decided(Machine(gpus)).precision == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"devices": "GPU:1"}, "mixed_bfloat16"),
        ({"devices": "GPU:0"}, "float32"),
        ({"strategy": "one_device"}, "float32"),
        ({"devices": "cpu"}, "float32"),
        ({"devices": "GPU:0", "precision": "mixed_float16"}, "mixed_float16"),
        ({"devices": "GPU:1", "precision": "float32"}, "float32"),
        ({"devices": "cpu", "precision": "mixed_bfloat16"}, "mixed_bfloat16"),
    ],
)
def test_the_precision_is_that_of_the_chosen_devices_unless_it_is_given(options, expected):
    assert decided(Machine((PASCAL, HOPPER)), **options).precision == expected


@pytest.mark.parametrize(
    ("machine", "cluster", "options", "expected", "reason"),
    [
        (CPU, None, {}, False, "measured slower"),
        (CPU, None, {"xla": "on"}, True, "as given"),
        (ONE, None, {}, True, "GPU"),
        (ONE, None, {"xla": "off"}, False, "as given"),
        (ONE, None, {"devices": "cpu"}, False, "measured slower"),
        # A single replica has nobody to exchange statistics with.
        (ONE, None, {"sync_bn": True}, True, "GPU"),
        (ONE, None, {"sync_bn": True, "xla": "on"}, True, "as given"),
        (ONE, PAIR, {"sync_bn": True}, False, "sync_bn exchanges statistics"),
        (FOUR, None, {"sync_bn": True}, False, "sync_bn exchanges statistics"),
        (FOUR, None, {"sync_bn": True, "xla": "off"}, False, "as given"),
        (FOUR, None, {}, True, "GPU"),
        (ONE, None, {"depth": 200}, True, "GPU"),
        # Loops over equal units compile as fast at any depth.
        (ONE, None, {"depth": 1001}, True, "GPU"),
        (ONE, None, {"depth": 200, "unit_loops": "off"}, True, "GPU"),
        (ONE, None, {"depth": 206, "unit_loops": "off"}, False, "deeper than 200 layers"),
        (ONE, None, {"depth": 1001, "unit_loops": "off"}, False, "compile for too long"),
        (ONE, None, {"depth": 1001, "xla": "on"}, True, "as given"),
        (ONE, None, {"depth": None}, True, "GPU"),
    ],
)
def test_xla_compiles_on_gpus_what_it_can_in_time(machine, cluster, options, expected, reason):
    plan = make_compute_plan(TrainConfig(**{"depth": 20, **options}), machine, cluster)
    assert plan.xla is expected
    assert reason in plan.reasons["xla"]


@pytest.mark.parametrize(
    ("machine", "cluster", "options", "words"),
    [
        (ONE, None, {"devices": "2"}, ["1 to 1, cpu, or of GPU:0", "devices=2"]),
        (FOUR, None, {"devices": "5"}, ["1 to 4, cpu, or of GPU:0, GPU:1, GPU:2, GPU:3"]),
        (FOUR, None, {"devices": "0"}, ["devices must be 1 to 4", "devices=0"]),
        (FOUR, None, {"devices": "GPU:4"}, ["of GPU:0, GPU:1", "devices=GPU:4"]),
        (FOUR, None, {"devices": "GPU:1,GPU:1"}, ["devices=GPU:1,GPU:1"]),
        (FOUR, None, {"devices": "GPU:1,CPU:0"}, ["devices=GPU:1,CPU:0"]),
        (CPU, None, {"devices": "GPU:0"}, ["devices must be a number, or cpu", "devices=GPU:0"]),
        (CPU, None, {"devices": "0"}, ["devices must be a number, or cpu"]),
        (CPU, None, {"devices": "two"}, ["devices must be a number, or cpu", "TWO"]),
        (CPU, None, {"devices": ""}, ["devices must be a number, or cpu"]),
        (CPU, None, {"strategy": "mirrored"}, ["two devices or more", "=CPU:0,CPU:1"]),
        (ONE, None, {"strategy": "mirrored"}, ["two devices or more", "GPU:0"]),
        (FOUR, None, {"strategy": "mirrored", "devices": "cpu"}, ["two devices or more", "CPU:0"]),
        (FOUR, None, {"strategy": "one_device", "devices": "2"}, ["one device", "devices=2"]),
        (CPU, None, {"strategy": "one_device", "devices": "2"}, ["one device", "devices=2"]),
        (
            FOUR,
            None,
            {"strategy": "multi_worker"},
            ["SLURM", 'TF_CONFIG=\'{"cluster": {"worker": ["host1:2222"', "Received: neither"],
        ),
        (FOUR, PAIR, {"strategy": "mirrored"}, ["names 2 workers", "Leave --strategy out"]),
        (CPU, PAIR, {"strategy": "one_device"}, ["strategy='one_device'", "start one process"]),
        (CPU, PAIR, {"devices": "2"}, ["start more workers", "--devices=2"]),
        (ONE, PAIR, {"devices": "CPU:0,CPU:1"}, ["start more workers", "--devices=CPU:0,CPU:1"]),
        (ONE, None, {"devices": "CPU:1"}, ["CPU:0,CPU:1 splits its CPU in two", "devices=CPU:1"]),
        (CPU, None, {"devices": "CPU:1,CPU:0"}, ["devices=CPU:1,CPU:0"]),
        (FOUR, None, {"sync_bn": True, "xla": "on"}, ["sync_bn", "Give one of them"]),
        (CPU, PAIR, {"sync_bn": True, "xla": "on"}, ["xla='on', sync_bn=True"]),
    ],
)
def test_impossible_wishes_are_refused_with_possible_ones(machine, cluster, options, words):
    with pytest.raises(ValueError) as error:
        decided(machine, cluster, **options)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("machine", "cluster", "batch", "parts", "fitting", "multiple"),
    [
        (CPU, None, 7, 2, "6 or 8", 2),
        (FOUR, None, 126, 1, "124 or 128", 4),
        (FOUR, None, 100, 3, "96 or 108", 12),
        (FOUR, PAIR, 9, 1, "8 or 16", 8),
        # No smaller batch would do.
        (FOUR, None, 3, 1, ": 4,", 4),
    ],
)
def test_a_batch_that_cannot_be_cut_is_refused_with_two_that_can(
    machine, cluster, batch, parts, fitting, multiple
):
    options = {"global_batch_size": batch, "gradient_accumulation_steps": parts}
    with pytest.raises(ValueError, match=f"must be a multiple of {multiple}, ") as error:
        decided(machine, cluster, **options)
    assert fitting in str(error.value)
    assert f"global_batch_size={batch}" in str(error.value)
    for number in fitting.strip(":, ").split(" or "):
        fits = decided(machine, cluster, **{**options, "global_batch_size": int(number)})
        assert int(number) % (fits.replicas * parts) == 0


@pytest.mark.parametrize(
    ("machine", "cluster", "options", "line"),
    [
        (CPU, None, {}, "Strategy one_device on CPU:0: one device"),
        (FOUR, None, {"devices": "2"}, "Strategy mirrored on GPU:0, GPU:1: 2 devices"),
        (FOUR, None, {"strategy": "one_device"}, "Strategy one_device on GPU:0: as given"),
        (
            FOUR,
            PAIR,
            {"devices": "2"},
            "Strategy multi_worker on 2 workers with GPU:0, GPU:1 each: TF_CONFIG or SLURM names "
            "several workers",
        ),
    ],
)
def test_a_compute_plan_says_where_it_computes_and_why(machine, cluster, options, line):
    assert str(decided(machine, cluster, **options)).splitlines()[0] == line


@pytest.mark.parametrize(
    ("machine", "options", "precision", "xla"),
    [
        (
            CPU,
            {},
            "Precision float32: CPU; mixed_bfloat16 is faster where it has bfloat16 instructions",
            "XLA off: CPU; measured slower than TensorFlow's own kernels",
        ),
        (
            Machine(has_bfloat16=True),
            {"xla": "off"},
            "Precision float32: CPU; mixed_bfloat16 may be faster here, as it has bfloat16 "
            "instructions",
            "XLA off: as given",
        ),
        (
            Machine(has_bfloat16=False),
            {"xla": "off"},
            "Precision float32: CPU; it has no bfloat16 instructions, with which mixed_bfloat16 "
            "would be faster",
            "XLA off: as given",
        ),
        (ONE, {}, "Precision mixed_bfloat16: the GPUs have bfloat16 units", "XLA on: GPU"),
        (
            Machine((VOLTA,)),
            {"xla": "off"},
            "Precision mixed_float16: the GPUs have float16 units but none for bfloat16",
            "XLA off: as given",
        ),
        (
            Machine((None,)),
            {"xla": "on"},
            "Precision float32: the GPUs are not known to be faster in 16 bits",
            "XLA on: as given",
        ),
        (
            ONE,
            {"precision": "float32"},
            "Precision float32: as given; TF32 on, so they multiply with 10 bits; "
            "NVIDIA_TF32_OVERRIDE=0 switches it off",
            "XLA on: GPU",
        ),
        (
            Machine((AMPERE,), tf32=False),
            {"precision": "float32"},
            "Precision float32: as given; TF32 off",
            "XLA on: GPU",
        ),
        # Neither older GPUs nor CPUs have TF32.
        (Machine((VOLTA,)), {"precision": "float32"}, "Precision float32: as given", "XLA on: GPU"),
        (
            ONE,
            {"precision": "float32", "devices": "cpu", "xla": "off"},
            "Precision float32: as given",
            "XLA off: as given",
        ),
        (
            CPU,
            {"precision": "mixed_float16", "xla": "off"},
            "Precision mixed_float16: as given; processors compute it slowly",
            "XLA off: as given",
        ),
        (ONE, {"precision": "mixed_float16"}, "Precision mixed_float16: as given", "XLA on: GPU"),
    ],
)
def test_precision_and_xla_have_a_line_each(machine, options, precision, xla):
    *lines, _ = str(decided(machine, **options)).splitlines()[1:]
    assert lines == [precision, xla]


@pytest.mark.parametrize(
    ("machine", "cluster", "options", "loops", "reason"),
    [
        (CPU, None, {}, False, "faster with less than 8 units a stage"),
        (CPU, None, {"depth": 56}, True, "9 units in a stage"),
        (CPU, None, {"depth": 1001}, True, "111 units in a stage"),
        (CPU, None, {"unit_loops": "on"}, True, "as given"),
        (CPU, None, {"depth": 56, "unit_loops": "off"}, False, "as given"),
        (CPU, None, {"remat": "auto"}, True, "remat computes units again in loops"),
        (CPU, None, {"xla": "on"}, True, "XLA compiles each kind of unit once"),
        (ONE, None, {}, True, "XLA compiles each kind of unit once"),
        (FOUR, None, {"depth": 1001, "sync_bn": True}, False, "sync_bn exchanges statistics"),
    ],
)
def test_equal_units_are_loops_where_that_pays(machine, cluster, options, loops, reason):
    plan = decided(machine, cluster, **options)
    assert plan.loops is loops and reason in plan.reasons["loops"]
    state = "on" if loops else "off"
    assert f"Loops over equal units {state}: {reason}" in str(plan).splitlines()[-1]


@pytest.mark.parametrize("options", [{"remat": "auto"}, {"unit_loops": "on"}])
def test_loops_and_synchronized_bn_exclude_each_other(options):
    with pytest.raises(ValueError, match="sync_bn cannot exchange statistics inside loops"):
        decided(FOUR, **options, sync_bn=True)


def test_the_machine_is_described_by_its_gpus_and_its_processor(monkeypatch):
    details = {"a": {"compute_capability": (8, 6)}, "b": {}}
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda kind: list(details))
    monkeypatch.setattr("tensorflow.config.experimental.get_device_details", details.get)
    expected = Machine(((8, 6), None), has_bfloat16(), tf32=False)
    assert Machine.here() == expected
    tf.config.experimental.enable_tensor_float_32_execution(True)
    try:
        assert Machine.here() == dataclasses.replace(expected, tf32=True)
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(False)
