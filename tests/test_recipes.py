"""Every recipe in configs/ parses, and says what it is."""

import pathlib
import re

import pytest
from absl import flags

from keras_preact.support import flags as config_flags
from keras_preact.training import TrainConfig
from keras_preact.training.steps.optimizer import make_schedule

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ("cifar.flags", "imagenet.flags")
RECIPES = sorted(p for p in (ROOT / "configs").glob("*.flags") if p.name not in SHARED)


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line as train.py does, into flags of its own."""
    values = flags.FlagValues()
    config_flags.define(TrainConfig, values)
    monkeypatch.chdir(ROOT)

    def parse(*arguments):
        values(["train.py", *arguments])
        return TrainConfig(**config_flags.given(TrainConfig, values))

    return parse


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_opens_with_its_command_and_source(path, parse):
    config = parse(f"--flagfile=configs/{path.name}")
    config.require("dataset", "depth", "run_dir")
    assert path.stem == f"{config.run_dir.removeprefix('runs/')}"
    command, *header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert command.startswith(f"# python train.py --flagfile=configs/{path.name}")
    assert any(line.startswith("# Source: ") for line in header)
    assert "paper" in " ".join(header)


def test_the_recipes_that_are_promised_exist():
    assert {path.stem for path in RECIPES} == {
        *(f"cifar10_resnet{depth}" for depth in (20, 56, 110, 164, 1001)),
        *(f"imagenet_resnet{depth}" for depth in (50, 152, 200)),
        *("cifar100_resnet164", "digits_resnet20", "folder_resnet18"),
    }


def test_the_cifar_recipes_are_the_papers(parse):
    config = parse("--flagfile=configs/cifar10_resnet164.flags")
    assert (config.global_batch_size, config.momentum, config.weight_decay) == (128, 0.9, 1e-4)
    assert config.decay_bn and config.unit == "full_preactivation"
    schedule = make_schedule(config, 50_000)
    rates = [round(float(schedule(step)), 6) for step in (0, 399, 400, 32_000, 48_000, 63_999)]
    assert rates == [0.01, 0.01, 0.1, 0.01, 0.001, 0.001]
    assert schedule.train_steps == 64_000


def test_the_imagenet_recipes_are_the_papers(parse):
    schedule = make_schedule(parse("--flagfile=configs/imagenet_resnet200.flags"), 1_281_167)
    per_epoch = 1_281_167 / 256
    rates = [round(float(schedule(e * per_epoch)), 6) for e in (0, 29.9, 30.1, 59.9, 60.1)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001]


def test_the_command_line_wins_over_its_flagfile(parse):
    config = parse("--flagfile=configs/digits_resnet20.flags", "--depth=56", "--drop_steps=10,20")
    assert (config.depth, config.drop_steps) == (56, (10, 20))


def test_numbers_that_are_none_are_refused(parse):
    with pytest.raises(flags.IllegalFlagValueError, match="numbers separated by commas"):
        parse("--drop_steps=10,twenty")


@pytest.mark.parametrize("name", ["kubernetes.yaml", "slurm.sbatch"])
def test_the_flags_of_the_cluster_examples_parse(name, parse):
    text = (ROOT / "configs" / "cluster" / name).read_text()
    [command] = re.findall(r"train\.py(.*--resume)$", text, re.DOTALL | re.MULTILINE)
    given = re.findall(r"--\S+", command)
    config = parse(*(flag.replace('"', "") for flag in given))
    assert config.strategy == "multi_worker" and config.resume
    assert config.depth == 50 and config.run_dir.endswith("runs/imagenet_resnet50")
