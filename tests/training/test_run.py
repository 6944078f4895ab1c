"""Runs from their configuration: their files, refusals and replacement."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from same_runs import saved
from small_runs import small
from small_states import names

from keras_preact.training import DivergenceError, run
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.distribution import strategies
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, and its last evaluation."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    return folder, run(small(folder, train_steps=13))


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of that folder, to change."""
    return shutil.copytree(trained[0], tmp_path / "run")


def test_a_run_leaves_everything_that_is_promised_and_nothing_else(trained):
    folder, result = trained
    assert names(folder) == [
        *("checkpoints", "config.json", "curves.png", "labels.txt", "metrics.csv"),
        "tensorboard",
    ]
    # 1,437 / 128 = 11.2 steps an epoch, so one evaluation in it and one at the end.
    rows = metrics_file.read(folder / "metrics.csv")
    assert [row.step for row in rows] == [12, 13]
    assert names(folder / "checkpoints") == ["best", "checkpoint", "step-12", "step-13"]
    assert rows[-1].eval_accuracy == pytest.approx(result.accuracy, rel=1e-5)
    assert rows[-1].epoch == pytest.approx(13 * 128 / 1437, rel=1e-5)
    assert result.count == 360
    assert (folder / "labels.txt").read_text().split() == list("0123456789")
    run_state = {
        name.split("/")[1]: value
        for name, value in saved(folder).items()
        if name.startswith("position/")
    }
    assert (run_state["step"], run_state["epoch"], run_state["step_in_epoch"]) == (13, 1, 2)


@pytest.mark.usefixtures("without_pictures")
def test_a_complete_run_is_resumed_without_a_further_step(finished, capsys):
    before = saved(finished)
    run(small(finished, train_steps=13, resume=True))
    assert "complete" in capsys.readouterr().out
    for name, value in saved(finished).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    history = json.loads((finished / "config.json").read_text())["history"]
    assert [(entry["step"], entry["changes"]) for entry in history] == [(0, {}), (13, {})]


def test_evaluating_a_run_gives_what_training_reported(trained, capsys):
    folder, result = trained
    config, _ = RunFolder(folder).read()
    evaluated = run(config.updated(mode="evaluate", global_batch_size=77))
    assert evaluated.accuracy == result.accuracy
    assert evaluated.loss == pytest.approx(result.loss, rel=1e-4)
    assert f"{result.accuracy:.2%}" in capsys.readouterr().out


def test_workers_that_see_different_checkpoints_evaluate_none(trained, monkeypatch):
    config, _ = RunFolder(trained[0]).read()
    # As if a run in progress had saved a checkpoint between the reads of two workers.
    monkeypatch.setattr(strategies, "_total", lambda strategy, number: number + 8)
    with pytest.raises(ValueError, match=r"newest checkpoints differ\. Received: step 13 here"):
        run(config.updated(mode="evaluate"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("class_names", tuple("abcdefghij")),
        ("train_count", 1436),
        ("eval_count", 361),
        ("mean", (78.5,)),
        ("std", (90.0,)),
    ],
)
def test_a_run_is_not_resumed_on_other_data(finished, name, value):
    record = json.loads((finished / "config.json").read_text())
    now = getattr(RunFolder(finished).read()[1], name)
    record["dataset"][name] = value
    before = json.dumps(record).encode()
    (finished / "config.json").write_bytes(before)
    with pytest.raises(ValueError) as error:
        run(small(finished, train_steps=20, resume=True))
    first, head, *rows = str(error.value).splitlines()
    assert first == "The data must be those of the run. These differ:"
    cells = [re.split("  +", line.strip()) for line in (head, *rows)]
    assert cells == [["in the run", "now"], [name, str(value), str(now)]]
    assert (finished / "config.json").read_bytes() == before


@pytest.mark.usefixtures("without_pictures")
def test_a_run_is_replaced_on_request_and_kept_until_the_new_one_has_saved(tmp_path):
    folder = tmp_path / "run"
    run(small(folder, train_steps=2))
    before, first = (folder / "metrics.csv").read_bytes(), saved(folder)
    with pytest.raises(ValueError, match="holds a run already"):
        run(small(folder, depth=14))
    assert (folder / "metrics.csv").read_bytes() == before
    with pytest.raises(DivergenceError):
        run(small(folder, overwrite=True, learning_rate=1e30, warmup_steps=0))
    old = folder / ".overwritten"
    assert checkpoint.find(old / "checkpoints", "newest") == str(old / "checkpoints" / "step-2")
    assert (old / "config.json").exists()
    run(small(folder, train_steps=2, overwrite=True, seed=1))
    assert not old.exists()
    assert [row.step for row in metrics_file.read(folder / "metrics.csv")] == [2]
    # Another seed is another run.
    second = saved(folder)
    [kernel] = [name for name in first if name.startswith("model/stem_conv")]
    assert not np.allclose(first[kernel], second[kernel])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": None}, "dataset must be given"),
        ({"depth": None}, "depth must be given"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"dataset": "folder"}, "needs data_dir"),
        ({"dataset": "folder", "data_dir": "/no/such/folder"}, "/no/such/folder"),
        ({"dataset": "cifar10", "data_dir": "/no/such/folder"}, "/no/such/folder/cifar10/VERSION"),
        ({"augmentation": "random_resized_crop"}, "augmentation of digits"),
    ],
)
def test_an_impossible_configuration_fails_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        run(dataclasses.replace(small(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    "changes",
    [
        {"shortcut": "none"},
        {"unit": "original", "shortcut": "dropout", "block": "single"},
        {"shortcut": "exclusive_gating", "shortcut_arguments": "initial_bias=-3"},
    ],
)
def test_other_units_and_shortcuts_train_from_flags_alone(tmp_path, changes):
    assert np.isfinite(run(small(tmp_path / "run", train_steps=2, **changes)).loss)


@pytest.mark.parametrize("depth", [8, 18])
def test_images_of_one_pixel_train_like_any_other(tmp_path, depth):
    changes = {"dataset": "synthetic", "image_size": 1, "depth": depth, "train_steps": 1}
    result = run(small(tmp_path / "run", warmup_steps=1, width_multiplier=0.25, **changes))
    assert result.count == 256 and np.isfinite(result.loss)
