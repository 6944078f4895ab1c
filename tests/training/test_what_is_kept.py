"""Runs beside others, without their checkpoints, overwritten, or with a stolen folder."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from etils import epath
from fork_server import ROOT
from same_runs import saved
from small_runs import AtStep, small

from keras_preact.training import Interrupted, SaveError, run
from keras_preact.training.checkpoints.folder import keep, listed
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder

TIMEOUT_SECONDS = 180
TRAIN = ("--dataset=digits", "--depth=8", "--global_batch_size=128", "--log_steps=1")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, to copy and harm."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    run(small(folder, checkpoint_steps=2, keep_checkpoints=2))
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def steps(folder):
    """Names in a folder that contain a step."""
    return sorted(path.name for path in folder.iterdir() if "step-" in path.name)


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def without_newest(folder):
    for path in (folder / "checkpoints").glob("step-*"):
        shutil.rmtree(path)


def without_newest_and_rows(folder):
    without_newest(folder)
    (folder / "metrics.csv").unlink()


def with_damaged_alone(folder):
    shutil.move(folder / "checkpoints", folder / "aside")
    (folder / "metrics.csv").unlink()
    (folder / "checkpoints" / "damaged").mkdir(parents=True)


def on_a_disk_that_is_not_mounted(folder):
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").symlink_to(folder / "not" / "mounted")


def on_an_empty_disk(folder):
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").mkdir()


def in_a_file(folder):
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints").write_text("no folder")


def half_set_aside(folder):
    (folder / ".overwritten").mkdir()
    for name in ("checkpoints", "metrics.csv"):
        (folder / name).rename(folder / ".overwritten" / name)


def test_an_overwrite_killed_halfway_loses_nothing(folder):
    before = files_of(folder)
    half_set_aside(folder)
    RunFolder(folder).set_aside()
    assert files_of(folder / ".overwritten") == before


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (without_newest, ["metrics.csv has the evaluation after step 6", "best has that of step"]),
        (without_newest_and_rows, ["best has that of step", "--checkpoint=best"]),
        (with_damaged_alone, ["there is", "damaged"]),
        (on_a_disk_that_is_not_mounted, ["checkpoints cannot be read: No such file"]),
        (on_an_empty_disk, ["metrics.csv has the evaluation after step 6"]),
        (half_set_aside, ["has parts of it"]),
        (in_a_file, ["checkpoints cannot be read: Not a directory"]),
    ],
)
def test_a_run_that_has_lost_its_checkpoints_does_not_begin_anew(folder, harm, words):
    harm(folder)
    before = files_of(folder)
    with pytest.raises(ValueError, match="no checkpoint to resume from, but had one") as error:
        run(small(folder, resume=True, train_steps=8))
    for word in (*words, "--overwrite", "mounted"):
        assert word in str(error.value)
    assert files_of(folder) == before


def test_a_run_that_was_killed_in_its_first_save_begins_anew(folder):
    """SIGKILL came between the row of metrics.csv and the last rename of the checkpoint."""
    checkpoints = folder / "checkpoints"
    [best] = steps(checkpoints / "best")
    (checkpoints / "step-6").rename(checkpoints / ".step-6.tmp")
    without_newest(folder)
    (checkpoints / ".step-6.tmp" / "manifest.json").unlink()
    assert best == "step-6" and len(metrics_file.read(folder / "metrics.csv")) == 1
    run(small(folder, resume=True))
    assert steps(checkpoints) == ["step-6"]
    # An earlier evaluation does not belong to that save.
    (checkpoints / "step-6").rename(checkpoints / ".step-9.tmp")
    with pytest.raises(ValueError, match="but had one"):
        run(small(folder, resume=True))


@pytest.mark.parametrize("name", ["net*", "net?", "net[12]"])
def test_keeping_few_checkpoints_deletes_none_of_other_runs(tmp_path, finished, name):
    """Tests the library: the programs refuse such names, as TensorFlow cannot read them back."""
    for other in ("net1", "net2", name):
        shutil.copytree(finished / "checkpoints", tmp_path / other)
    before = [files_of(tmp_path / other) for other in ("net1", "net2")]
    folder = epath.Path(tmp_path / name)
    assert listed(folder) == [str(folder / f"step-{step}") for step in (6, 4)]
    keep(folder, listed(folder)[:1], RunFolder(finished).recorded_id())
    assert steps(tmp_path / name) == ["step-6"]
    assert [files_of(tmp_path / other) for other in ("net1", "net2")] == before


@pytest.mark.parametrize(
    "command",
    [
        ["--run_dir=runs/net*", "--keep_checkpoints=1", "--overwrite"],
        ["--run_dir=runs/net[12]", "--resume"],
        ["--run_dir=runs/link", "--overwrite"],
    ],
)
def test_train_py_refuses_a_name_that_other_runs_fit(tmp_path, finished, server, command):
    for other in ("net1", "net2", "net*"):
        shutil.copytree(finished, tmp_path / "runs" / other)
    (tmp_path / "runs" / "link").symlink_to("net*")
    before = files_of(tmp_path)
    code, _, errors = server.call("train.py", *TRAIN, "--train_steps=1", *command, cwd=tmp_path)
    assert code == 2 and errors.startswith("Error: run_dir must not hold")
    assert files_of(tmp_path) == before


def test_a_run_deletes_only_its_own_checkpoints(folder, finished):
    checkpoints = folder / "checkpoints"
    (checkpoints / "step-1").mkdir()
    (checkpoints / "step-1" / "notes.txt").write_text("mine")
    shutil.copytree(checkpoints / "step-4", checkpoints / "step-3")
    manifest = checkpoints / "step-3" / "manifest.json"
    manifest.write_text(manifest.read_text().replace(RunFolder(finished).recorded_id(), "another"))
    (checkpoints / "step-old").mkdir()
    run(small(folder, resume=True, train_steps=8, keep_checkpoints=1))
    assert steps(checkpoints) == ["step-1", "step-3", "step-8", "step-old"]
    assert (checkpoints / "step-1" / "notes.txt").read_text() == "mine"


def test_a_checkpoint_of_another_run_is_refused_and_one_of_an_earlier_version_taken(folder):
    manifest = folder / "checkpoints" / "step-6" / "manifest.json"
    text, own = manifest.read_text(), RunFolder(folder).recorded_id()
    manifest.write_text(text.replace(own, "0" * 32))
    before = files_of(folder)
    for changes in ({"resume": True, "train_steps": 8}, {"mode": "evaluate"}):
        with pytest.raises(ValueError, match="must be its own") as error:
            run(small(folder).updated(**changes))
        assert own in str(error.value) and "0" * 32 in str(error.value)
    assert files_of(folder) == before
    manifest.write_text(text.replace(f',\n  "run": "{own}"', ""))
    run(small(folder, resume=True, train_steps=8))
    assert RunFolder(folder).recorded_id() == own


def test_a_checkpoint_of_another_seed_is_refused(folder):
    record = folder / "config.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(
        ValueError, match=r"seed is 7. Received: the checkpoint of step 6, of seed 0"
    ):
        run(small(folder, resume=True, seed=7, train_steps=8))


@pytest.mark.slow
def test_an_overwritten_run_is_kept_until_the_new_one_has_been_evaluated(folder, capsys):
    before = files_of(folder)

    def ask():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.2)  # until another thread has heard it

    with pytest.raises(Interrupted) as stopped:
        run(small(folder, overwrite=True, checkpoint_steps=1), actions=[AtStep(2, ask)])
    assert steps(folder / "checkpoints") == ["step-1", "step-2", "step-3"]
    [note] = stopped.value.__notes__
    command = f"mv {folder / '.overwritten'} NEW_RUN_DIR"
    assert command in note and command in capsys.readouterr().out
    copy = folder.parent / "back"
    subprocess.run(
        f"cp -r {folder / '.overwritten'} {folder / 'copy'} && "
        f"{command.replace('NEW_RUN_DIR', str(copy))} && "
        f"mv {folder / 'copy'} {folder / '.overwritten'}",
        shell=True,
        check=True,
    )
    assert files_of(copy) == before
    run(small(folder, resume=True))
    assert not (folder / ".overwritten").exists()
    run(small(copy, resume=True, train_steps=7))


def test_a_run_whose_folder_is_taken_away_writes_nothing_more(tmp_path):
    folder, moved = tmp_path / "run", tmp_path / "moved"

    def take_away():
        while "step-2" not in (folder / "checkpoints" / "checkpoint").read_text():
            time.sleep(0.01)
        shutil.move(folder, moved)

    with pytest.raises(SaveError, match="is no longer the folder of this run"):
        run(small(folder, checkpoint_steps=1), actions=[AtStep(3, take_away)])
    assert not folder.exists()
    assert steps(moved / "checkpoints") == ["step-1", "step-2"]


KERNEL = "model/logits.Skernel/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.mark.slow
def test_two_processes_never_train_in_one_folder(tmp_path, server):
    """Somebody deletes the folder of a run in progress, and starts another."""
    folder = tmp_path / "run"
    flags = [*TRAIN, f"--run_dir={folder}", "--eval_epochs=1000", "--checkpoint_steps=40"]
    first = subprocess.Popen(
        [sys.executable, "train.py", *flags, "--train_steps=100000", "--seed=1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with first:
        for line in first.stdout:
            if line.startswith("step 1 "):
                break
        first.send_signal(signal.SIGSTOP)
        shutil.rmtree(folder)
        code, _, errors = server.call("train.py", *flags, "--train_steps=4")
        assert code == 0, errors
        before = files_of(folder)
        first.send_signal(signal.SIGCONT)
        rest = first.stdout.read()
        assert first.wait(TIMEOUT_SECONDS) == 74, rest
        assert f"Error: {folder} is no longer the folder of this run" in rest
        assert "Traceback" not in rest
        assert files_of(folder) == before
        values = saved(folder)
        code, output, errors = server.call("train.py", *flags, "--train_steps=5", "--resume")
        assert code == 0 and "Continuing after step 4\n" in output, errors
        assert not np.array_equal(
            values[KERNEL],
            saved(folder)[KERNEL],
        )
