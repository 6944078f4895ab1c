"""Every recipe in configs/ parses, and says what it is."""

import pathlib
import re

import numpy as np
import pytest
from absl import flags

from keras_preact.support import flags as config_flags
from keras_preact.support import recipes
from keras_preact.training import TrainConfig
from keras_preact.training.steps.schedules import make_schedule

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = ("cifar.flags", "imagenet.flags")
RECIPES = sorted(p for p in (ROOT / "configs").glob("*.flags") if p.name not in SHARED)

# "Identity Mappings in Deep Residual Networks", tables 3 (CIFAR) and 5 (ImageNet, top-1); of
# networks that it does not have, "Deep Residual Learning for Image Recognition", tables 3 and 6.
PAPER = {
    "cifar10_resnet20": "8.75 % (original units)",
    "cifar10_resnet56": "6.97 % (original units)",
    "cifar10_resnet110": "6.37 %",
    "cifar10_resnet164": "5.46 %",
    "cifar10_resnet1001": "4.92 %",
    "cifar100_resnet164": "24.33 %",
    "digits_resnet20": "none",
    "finetune_folder": "none",
    "folder_resnet18": "none",
    "cifar10_resnet20_modern": "none",
    "imagenet_resnet50_a1": "top-1 19.6 % (original units)",
    "imagenet_resnet50": "top-1 22.85 %, top-5 6.71 % (original units, ten crops)",
    "imagenet_resnet152": "top-1 21.1 %, top-5 5.5 % (one 320x320 crop, scale augmentation alone)",
    "imagenet_resnet200": "top-1 20.1 %, top-5 4.8 % (one 320x320 crop)",
}


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Parses a command line as train.py does, into flags of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def parse(*arguments):
        values = flags.FlagValues()
        config_flags.define(TrainConfig, values)
        parser = config_flags.parser("", TrainConfig, values, recipes=True)
        parser(["python train.py", *arguments])
        return TrainConfig(**config_flags.given(TrainConfig, values))

    return parse


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_opens_with_its_command_and_source(path, parse):
    config = parse(f"--recipe={path.stem}")
    config.require("dataset", "run_dir")
    # A network to begin with has a depth of its own.
    assert (config.depth is None) == path.stem.startswith("finetune_")
    assert path.stem == f"{config.run_dir.removeprefix('runs/')}"
    command, *header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert command.startswith(f"# python train.py --recipe={path.stem}")
    assert any(line.startswith("# Source: ") for line in header)
    assert "paper" in " ".join(header)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_means_the_same_as_its_flagfile(path, parse):
    by_name = parse(f"--recipe={path.stem}", "--seed=3")
    assert parse("--recipe", path.stem, "--seed=3") == by_name
    assert parse(f"--flagfile={path}", "--seed=3") == by_name


def test_the_list_has_data_set_depth_and_the_papers_error(parse):
    listed = recipes.listed()
    assert {recipe.name: recipe.error for recipe in listed} == PAPER
    for recipe in listed:
        config = parse(f"--recipe={recipe.name}")
        assert (recipe.dataset, recipe.depth) == (config.dataset, config.depth)


def test_an_unknown_recipe_is_refused_with_the_nearest_and_all(parse):
    with pytest.raises(ValueError, match="Did you mean 'cifar10_resnet164'") as refused:
        parse("--recipe=cifar10_resnet165")
    assert all(name in str(refused.value) for name in PAPER)
    for name in ("../configs/cifar", "/etc/passwd", "nothing"):
        with pytest.raises(ValueError, match=r"^--recipe=.*recipe must be one of cifar10_resnet20"):
            parse(f"--recipe={name}")
    with pytest.raises(ValueError, match="Missing value for flag --recipe"):
        parse("--recipe")


def test_a_flagfile_of_the_users_own_may_begin_with_a_recipe(parse, tmp_path):
    (tmp_path / "my.flags").write_text("--recipe=digits_resnet20\n--depth=56\n")
    config = parse("--flagfile=my.flags", "--seed=1")
    assert (config.dataset, config.depth, config.seed) == ("digits", 56, 1)
    (tmp_path / "my.flags").write_text("--recipe=digit_resnet20\n")
    with pytest.raises(ValueError, match=r"^my.flags, line 1: --recipe=digit_resnet20: .*Did you"):
        parse("--flagfile=my.flags")


def test_the_recipes_that_are_promised_exist():
    assert {path.stem for path in RECIPES} == {
        *(f"cifar10_resnet{depth}" for depth in (20, 56, 110, 164, 1001)),
        *(f"imagenet_resnet{depth}" for depth in (50, 152, 200)),
        *("cifar100_resnet164", "digits_resnet20", "folder_resnet18", "finetune_folder"),
        *("cifar10_resnet20_modern", "imagenet_resnet50_a1"),
    }


def test_the_cifar_recipes_are_the_papers(parse):
    config = parse("--recipe=cifar10_resnet164")
    assert (config.global_batch_size, config.momentum, config.weight_decay) == (128, 0.9, 1e-4)
    assert config.resolved().decay_bn and config.unit == "full_preactivation"
    schedule = make_schedule(config, 50_000)
    rates = [round(float(schedule(step)), 6) for step in (0, 399, 400, 32_000, 48_000, 63_999)]
    assert rates == [0.01, 0.01, 0.1, 0.01, 0.001, 0.001]
    assert schedule.train_steps == 64_000


def test_the_imagenet_recipes_are_the_papers(parse):
    schedule = make_schedule(parse("--recipe=imagenet_resnet200"), 1_281_167)
    per_epoch = 1_281_167 / 256
    rates = [round(float(schedule(e * per_epoch)), 6) for e in (0, 29.9, 30.1, 59.9, 60.1)]
    assert rates == [0.1, 0.1, 0.01, 0.01, 0.001]


def test_the_imagenet_recipe_a1_is_that_of_its_paper(parse):
    """Table 2 of "ResNet strikes back"; batches of 2,048 are 625.57 steps an epoch."""
    config = parse("--recipe=imagenet_resnet50_a1").resolved()
    assert (config.optimizer, config.weight_decay, config.decay_bn) == ("lamb", 0.01, False)
    schedule = make_schedule(config, 1_281_167)
    assert (schedule.schedule_steps, schedule.warmup_steps) == (375_342, 3_128)
    np.testing.assert_allclose(schedule(3_128), 0.005, rtol=1e-6)
    np.testing.assert_allclose(schedule((3_128 + 375_342) // 2), 0.0025005, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "images", "length"),
    [
        ("folder_resnet18", 600, "--train_epochs=2"),
        ("folder_resnet18", 600, "--train_steps=38"),
        ("folder_resnet18", 600, "--schedule_epochs=2"),
        ("cifar10_resnet20_modern", 2400, "--train_epochs=2"),
        ("imagenet_resnet50_a1", 38_900, "--train_steps=38"),
    ],
)
def test_modern_recipes_end_at_their_last_rate_whatever_their_length(parse, name, images, length):
    schedule = make_schedule(parse(f"--recipe={name}", length), images)
    assert schedule.train_steps == schedule.schedule_steps == 38
    final, last = np.float32(schedule.final_learning_rate), float(schedule(37))
    assert float(schedule(38)) == final < last < 0.01 * schedule.learning_rate
    assert schedule.warmup_steps <= 2


def test_the_command_line_wins_over_the_recipe(parse):
    config = parse("--recipe=digits_resnet20", "--depth=56", "--drop_steps=10,20")
    assert (config.depth, config.drop_steps) == (56, (10, 20))


def test_numbers_that_are_none_are_refused(parse):
    with pytest.raises(ValueError, match="numbers separated by commas"):
        parse("--drop_steps=10,twenty")


@pytest.mark.parametrize("name", ["kubernetes.yaml", "slurm.sbatch"])
def test_the_flags_of_the_cluster_examples_parse(name, parse, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "configs" / "cluster" / name).read_text()
    [command] = re.findall(r"train\.py(.*--resume)$", text, re.DOTALL | re.MULTILINE)
    given = re.findall(r"--\S+", command)
    config = parse(*(flag.replace('"', "") for flag in given))
    assert config.strategy == "multi_worker" and config.resume
    assert config.depth == 50 and config.run_dir.endswith("runs/imagenet_resnet50")
