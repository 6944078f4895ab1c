"""Lower bounds of memory: computed by hand, and against the memory that runs take."""

import pathlib
import resource
import subprocess
import sys

import pytest

from keras_preact.benchmark.measure import peak_memory_mebibytes
from keras_preact.data import DatasetInfo
from keras_preact.layers import Convolution
from keras_preact.models import describe
from keras_preact.support import memory as support
from keras_preact.training import TrainConfig, memory, run
from keras_preact.training.distribution.cluster import Cluster
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan


def limit_memory(monkeypatch, size):
    """Pretends that `ulimit -v` was called."""
    monkeypatch.setattr(resource, "getrlimit", lambda which: (size, size))


ROOT = pathlib.Path(__file__).resolve().parents[2]
IMAGE = 32 * 32 * 3
INFO = DatasetInfo(
    "cifar10", tuple("abcdefghij"), (32, 32, 3), 50_000, 10_000, (0.0,) * 3, (1.0,) * 3, 1.0
)
NET = describe(20, print_fn=None)


def needed(count=memory.training_bytes, machine=Machine(), cluster=None, **options):  # noqa: B008
    options = {"depth": 20, "global_batch_size": 12, "unit_loops": "on", **options}
    config = TrainConfig(**options)
    return count(config, INFO, make_compute_plan(config, machine, cluster))


# Two of three units in each stage are in a loop. There each keeps its input and the output of its
# first convolution, elsewhere the outputs of a ReLU for each of the two as well.
STAGES = 1024 * 16 + 256 * 32 + 64 * 64
LOOPED = 2 * 2 * STAGES
OUTSIDE = NET.activations - 2 * 4 * STAGES
KEPT = OUTSIDE + LOOPED


def bytes_of(images, value_bytes=4, kept=KEPT):
    return images * value_bytes * kept


# Weights, their momentum, and the statistics of BN.
STATE = 4 * (2 * NET.parameters + NET.moving_statistics)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 12 * IMAGE + STATE + bytes_of(12)),
        ({"unit_loops": "off"}, 12 * IMAGE + STATE + 12 * 4 * NET.activations),
        ({"unit_loops": "off", "xla": "on"}, 12 * IMAGE + STATE + 12 * 2 * NET.activations),
        ({"gradient_accumulation_steps": 3}, 12 * IMAGE + STATE + bytes_of(4)),
        ({"precision": "mixed_bfloat16"}, 12 * IMAGE + STATE + bytes_of(12, 2)),
        ({"xla": "on"}, 12 * IMAGE + STATE + bytes_of(12, kept=OUTSIDE // 2 + LOOPED)),
        ({"devices": "2"}, 12 * IMAGE + 2 * STATE + bytes_of(6)),
        ({"momentum": 0.0}, 12 * IMAGE + STATE - 4 * NET.parameters + bytes_of(12)),
        (
            {"ema_decay": 0.9},
            12 * IMAGE + STATE + 4 * (NET.parameters + NET.moving_statistics) + bytes_of(12),
        ),
        # Nothing is known of how many activations the backward pass needs.
        ({"freeze": ("stem",)}, 12 * IMAGE + STATE + 12 * 4 * 32 * 32 * 16),
        (
            {"freeze": ("stem",), "thaw_epoch": 1.0},
            12 * IMAGE + STATE + bytes_of(12),
        ),
        # In a wide network, gradients take more memory than activations.
        ({"width_multiplier": 20, "global_batch_size": 1}, None),
    ],
)
def test_a_training_step_holds_images_state_and_activations_or_gradients(options, expected):
    if expected is None:
        net = describe(20, width_multiplier=20, print_fn=None)
        assert net.parameters > net.activations
        expected = IMAGE + 4 * (3 * net.parameters + net.moving_statistics)
    assert needed(**options) == expected


def test_the_network_is_that_of_the_configuration():
    options = {"unit": "original", "shortcut": "convolution", "block": "single", "depth": 11}
    net = describe(**options, print_fn=None)
    spelled = describe(**{**options, "shortcut": Convolution()}, print_fn=None)
    state = 4 * (2 * net.parameters + net.moving_statistics)
    assert needed(**options, unit_loops="off") == 12 * IMAGE + state + 48 * spelled.activations


def test_a_worker_holds_its_part_of_the_batch():
    pair = Cluster(("a:2222", "b:2222"), 1)
    assert needed(cluster=pair) == 6 * IMAGE + STATE + bytes_of(6)


@pytest.mark.parametrize("count", [memory.training_bytes, memory.evaluation_bytes])
def test_gpus_have_memory_of_their_own_and_the_images_come_from_here(count):
    assert needed(count, machine=Machine(((8, 0),))) == 12 * IMAGE


def test_what_is_recomputed_is_not_held_but_for_a_group_of_the_last_stage():
    def activations(remat, units=None):
        return needed(remat=remat, remat_units=units) - 12 * IMAGE - STATE

    around = sum(row.activations for row in NET.rows if "unit" not in row.name)
    # The first unit of each stage keeps its input: an image of 16 filters, 16 and 32.
    alone = 1024 * 16 + 1024 * 16 + 256 * 32
    # Of the two units of a loop, the input of each; and, in the last stage, what one keeps, or in
    # a group all that its gradients read.
    last = 64 * 64
    assert activations("unit") == 48 * (around + alone + 2 * STAGES + 2 * last)
    assert activations("group", 2) == 48 * (around + alone + STAGES + 2 * 4 * last)


GIB = 2**30
BIG = {"depth": 1001, "global_batch_size": 128}


def warned(left_bytes, machine=Machine(), **options):  # noqa: B008
    config = TrainConfig(**{**BIG, **options})
    plan = make_compute_plan(config, machine)
    return memory.warnings(config, INFO, plan, (left_bytes, "the machine"))


def test_a_step_that_will_hardly_fit_is_told_with_the_flag_that_makes_it_fit():
    assert warned(16 * GIB) == []
    [line] = warned(4 * GIB)
    config = TrainConfig(**BIG, remat="auto")
    then = memory.estimated_bytes(config, INFO, make_compute_plan(config, Machine()))
    assert then < 4 * GIB
    assert line.startswith(
        "Memory may run out. A step of 128 images through ResNet-1001 takes about "
    )
    assert "and the machine has 4 GiB left. To fit: give --remat=auto: about " in line
    assert line.endswith(support.in_words(then))
    assert warned(4 * GIB, remat="auto") == []


@pytest.mark.parametrize(
    ("left_bytes", "options", "flags"),
    [
        (1.6 * GIB, {}, "give --remat=auto --precision=mixed_bfloat16: about"),
        (1.6 * GIB, {"remat": "auto"}, "give --precision=mixed_bfloat16: about"),
        (1.6 * GIB, {"remat": "group", "remat_units": 110}, "give --remat=auto --precision=mix"),
        (0.75 * GIB, {}, "give --remat=auto --gradient_accumulation_steps=8: about"),
        (0.75 * GIB, {"gradient_accumulation_steps": 128}, None),
        (6 * GIB, {"unit_loops": "off"}, "give --gradient_accumulation_steps=4: about"),
        (
            0.75 * GIB,
            {"global_batch_size": 384, "gradient_accumulation_steps": 3},
            "give --remat=auto --gradient_accumulation_steps=24: about",
        ),
        (0.01 * GIB, {}, "take a smaller --depth or --width_multiplier"),
    ],
)
def test_the_flags_that_change_the_run_least_come_first(left_bytes, options, flags):
    lines = warned(int(left_bytes), **options)
    assert [flags in line for line in lines] == ([True] if flags else [])


def test_a_run_that_will_hardly_fit_begins_with_the_warning(tmp_path, monkeypatch, capsys):
    own_bytes = int(2**20 * peak_memory_mebibytes())
    # Less than the estimate, more than the lower bound.
    limit_memory(monkeypatch, own_bytes + 32 * 2**20)
    run(
        TrainConfig(
            dataset="synthetic",
            depth=8,
            global_batch_size=128,
            train_steps=1,
            warmup_steps=1,
            run_dir=str(tmp_path / "run"),
        )
    )
    begin, _, _ = capsys.readouterr().out.partition("Finished")
    assert "Memory may run out. A step of 128 images through ResNet-8 takes about" in begin


def test_devices_that_share_a_cpu_need_its_memory_together_and_frozen_parts_are_not_estimated():
    alone, both = (
        memory.estimated_bytes(config, INFO, make_compute_plan(config, Machine()))
        for config in (TrainConfig(**BIG), TrainConfig(**BIG, devices="2"))
    )
    assert alone < both < 1.1 * alone
    assert warned(GIB, freeze=("stem",)) == []
    assert warned(0) == []


def test_an_evaluation_holds_images_weights_and_the_largest_output():
    weights = 4 * (NET.parameters + NET.moving_statistics)
    expected = 12 * IMAGE + weights + 12 * 4 * 32 * 32 * 16
    assert needed(memory.evaluation_bytes, mode="evaluate") == expected


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_a_run_that_cannot_fit_is_refused_and_the_flags_are_named(monkeypatch, mode):
    limit_memory(monkeypatch, 2**30)
    config = TrainConfig(depth=20, global_batch_size=100_000, mode=mode)
    with pytest.raises(ValueError, match="A step of 100,000 images through ResNet-20") as error:
        memory.check(config, INFO, make_compute_plan(config, Machine()))
    assert "--global_batch_size" in str(error.value) and "GiB, and there are 1 GiB" in str(
        error.value
    )
    fits = config.updated(global_batch_size=100)
    memory.check(fits, INFO, make_compute_plan(fits, Machine()))


def test_an_image_that_cannot_be_held_is_refused_before_images_are_read(monkeypatch):
    limit_memory(monkeypatch, 12 * 100**2)
    memory.check_image_size(TrainConfig())
    memory.check_image_size(TrainConfig(image_size=100))
    with pytest.raises(ValueError, match=r"An image of 101x101 pixels must fit .* --image_size"):
        memory.check_image_size(TrainConfig(image_size=101))


# In a subprocess, whose peak memory is that of this run alone.
PROGRAM = """
import resource, sys
from keras_preact.data import datasets
from keras_preact.training import TrainConfig, memory, run
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan

config = TrainConfig(dataset="synthetic", train_steps=2, warmup_steps=1, run_dir=sys.argv[1],
                     **eval(sys.argv[2]))
info = datasets.load("synthetic", image_size=config.image_size).info
estimate = memory.training_bytes(config, info, make_compute_plan(config, Machine()))
run(config)
print(estimate, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "least"),
    [
        ({"depth": 20, "global_batch_size": 128}, 0.1),
        ({"depth": 20, "global_batch_size": 1024}, 0.4),
        ({"depth": 164, "global_batch_size": 128}, 0.5),
        ({"depth": 164, "global_batch_size": 128, "precision": "mixed_bfloat16"}, 0.4),
        ({"depth": 50, "image_size": 224, "global_batch_size": 16}, 0.25),
        ({"depth": 56, "global_batch_size": 256, "unit": "original"}, 0.4),
        ({"depth": 20, "width_multiplier": 12.0, "global_batch_size": 2}, 0.15),
    ],
    ids=str,
)
def test_no_run_takes_less_than_is_estimated_nor_much_more(tmp_path, options, least):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "run"), repr(options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    estimate, peak = map(int, done.stdout.splitlines()[-1].split())
    print(f"{options}: {estimate / 2**30:.2f} of {peak / 2**30:.2f} GiB, {estimate / peak:.2f}")
    assert least <= estimate / peak <= 1
