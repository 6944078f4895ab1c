"""`keras-preact experiments` as a user starts it: real processes, killed and resumed."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest
from etils import epath

from keras_preact.experiments import experiment as experiments
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.results import collect

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXPERIMENTS = ("-m", "keras_preact", "experiments")
TIMEOUT_SECONDS = 300
# Long enough to be killed in the middle.
MINE = """
recipe = "digits_resnet20"
seeds = [0]
flags = { depth = 8, train_steps = 800, checkpoint_steps = 50, eval_epochs = 5, log_steps = 20 }
[[rows]]
name = "one"
[[rows]]
name = "other"
flags = { unit = "original" }
"""


def start(*flags, cwd=ROOT):
    return subprocess.Popen(
        [sys.executable, *EXPERIMENTS, *flags],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def read(folder, name):
    return experiments.read(epath.Path(folder), epath.Path(folder) / "reports" / name)


def states(folder, name):
    return [run.state for row in collect(read(folder, name)) for run in row.seeds]


@pytest.fixture(scope="module")
def smoke(server, tmp_path_factory):
    """The folder of a table's smoke test, and what the program printed."""
    folder = tmp_path_factory.mktemp("smoke") / "experiments"
    flags = ("--budget=smoke", "--parallel_runs=2", f"--output_dir={folder}")
    code, out, err = server.call(*EXPERIMENTS, "degradation", *flags, timeout=TIMEOUT_SECONDS)
    assert (code, err) == (0, "")
    return folder, out


def test_smoke_of_a_table_trains_every_row_and_reports(smoke):
    folder, out = smoke
    assert "8 runs: 8 finished" in out
    assert states(folder, "degradation-smoke-3") == ["finished"] * 8
    report = folder / "reports" / "degradation-smoke-3"
    text = (report / "report.md").read_text()
    for row in TABLES["degradation"].rows:
        assert row.label in text
    # A figure of three steps never stands beside a published one without a word.
    assert "8x8 digits" in text.partition("\n|")[0]
    assert (report / "index.html").stat().st_size > 10_000


def test_a_second_call_trains_nothing_and_a_report_is_made_from_the_folders_alone(smoke, server):
    folder, _ = smoke
    flags = ("--budget=smoke", f"--output_dir={folder}")
    code, out, err = server.call(*EXPERIMENTS, "degradation", *flags)
    assert (code, err) == (0, "")
    assert "8 runs: 8 finished before" in out
    report = folder / "reports" / "degradation-smoke-3"
    written = (report / "report.md").read_text()
    for name in ("report.md", "index.html"):
        (report / name).unlink()
    code, out, err = server.call(*EXPERIMENTS, "report", f"--output_dir={folder}")
    assert (code, err) == (0, "")
    assert (report / "report.md").read_text() == written
    # Without the record, the table's name and budget tell which runs to look for.
    (report / experiments.RECORD).unlink()
    code, out, err = server.call(*EXPERIMENTS, "report", "degradation", *flags)
    assert (code, err) == (0, "")
    assert (report / "report.md").read_text() == written


def test_a_killed_run_and_a_killed_runner_go_on_with_the_next_call(tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text(MINE)
    flags = (f"--table={table}", "--budget=paper", f"--output_dir={tmp_path / 'out'}")
    process = start(*flags)
    first = wait_for_step(tmp_path, 300)
    os.kill(trainer_of(process.pid), signal.SIGKILL)
    wait_for_step(tmp_path, 100, others_than=first)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 143
    assert "one, seed 0: failed. killed by signal 9" in out
    assert states(tmp_path / "out", "mine-paper") == ["failed", "unfinished"]
    process = start(*flags)
    out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0
    assert "one, seed 0: goes on." in out
    assert "other, seed 0: goes on." in out
    assert states(tmp_path / "out", "mine-paper") == ["finished"] * 2
    for row in collect(read(tmp_path / "out", "mine-paper")):
        [run] = row.seeds
        calls = json.loads(run.folder.config.read_text())["history"]
        # The second call went on from a checkpoint.
        assert [call["step"] > 0 for call in calls] == [False, True]
        steps = [each.step for each in run.rows]
        assert steps == sorted(set(steps))


def test_runners_that_share_a_folder_take_each_run_once(tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text(MINE.replace("800", "60"))
    flags = (f"--table={table}", "--budget=paper", f"--output_dir={tmp_path / 'out'}")
    runners = [start(*flags), start(*flags)]
    outs = [runner.communicate(timeout=TIMEOUT_SECONDS)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], outs
    assert states(tmp_path / "out", "mine-paper") == ["finished"] * 2
    for row in collect(read(tmp_path / "out", "mine-paper")):
        for run in row.seeds:
            assert len(json.loads(run.folder.config.read_text())["history"]) == 1


def test_shards_divide_the_runs(server, tmp_path):
    table = tmp_path / "mine.toml"
    table.write_text(MINE.replace("800", "20"))
    flags = (f"--table={table}", "--budget=paper", f"--output_dir={tmp_path / 'out'}")
    code, _, err = server.call(*EXPERIMENTS, *flags, "--shard=2/2")
    assert (code, err) == (0, "")
    assert states(tmp_path / "out", "mine-paper") == ["missing", "finished"]


def test_a_run_that_diverges_is_a_result(server, tmp_path):
    table = tmp_path / "mine.toml"
    row = '[[rows]]\nname = "wild"\nflags = { learning_rate = 1e30, warmup_steps = 0 }'
    table.write_text(MINE.partition("[[rows]]")[0].replace("800", "30") + row)
    flags = (f"--table={table}", "--budget=paper", f"--output_dir={tmp_path / 'out'}")
    code, out, err = server.call(*EXPERIMENTS, *flags)
    assert (code, err) == (0, "")
    assert "wild, seed 0: diverged. The loss was" in out
    assert states(tmp_path / "out", "mine-paper") == ["diverged"]


UNITS = """
from keras_preact.layers import ActivationOrder
Mine = ActivationOrder(first="conv bn", middle="conv bn", last="conv bn", after_addition="relu")
"""


def test_a_unit_of_ones_own_is_kept_and_a_changed_one_begins_anew(server, tmp_path):
    units, table, out_dir = tmp_path / "units.py", tmp_path / "mine.toml", tmp_path / "out"
    units.write_text(UNITS)
    row = '[[rows]]\nname = "mine"\nflags = { unit = "units.py:Mine" }'
    table.write_text(MINE.partition("[[rows]]")[0].replace("800", "4") + row)
    flags = (f"--table={table}", "--budget=paper", f"--output_dir={out_dir}")
    code, out, err = server.call(*EXPERIMENTS, *flags)
    assert (code, err) == (0, "")
    assert len(list(out_dir.glob("runs/*"))) == 1
    units.write_text(UNITS.replace('"relu"', '""'))
    code, out, err = server.call(*EXPERIMENTS, *flags)
    assert (code, err) == (0, "")
    assert "1 runs: 1 finished\n" in out
    assert len(list(out_dir.glob("runs/*"))) == 2
    # The report needs neither the file nor the run's copy of it.
    units.unlink()
    code, out, err = server.call(*EXPERIMENTS, "report", f"--output_dir={out_dir}")
    assert (code, err) == (0, "")
    assert states(out_dir, "mine-paper") == ["finished"]
    code, _, err = server.call(*EXPERIMENTS, *flags)
    assert code == 2
    assert "units.py" in err
    units.write_text("raise KeyError('no')")
    code, _, err = server.call(*EXPERIMENTS, *flags)
    assert code == 2
    assert "units.py, line 1" in err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "One table must be given: table1, table2"),
        (["tabel1", "--budget=smoke"], "Did you mean 'table1'?"),
        (["table1"], "budget must be given: one of paper, short, early, smoke"),
        (["table1", "--budget=long"], "budget must be one of"),
        (["table1", "--budget=paper", "--steps=3"], "paper is the full recipe"),
        (["table1", "--budget=smoke", "--data_dir=x"], "embedded digits"),
        (["table1", "--budget=smoke", "--shard=3/2"], "PART from 1 to PARTS"),
        (["table1", "--budget=smoke", "--rows=identiy"], "Did you mean 'identity'?"),
        (["table1", "--budget=short", "--train_flags=--depht=56"], "Unknown command line flag"),
        (["table1", "--budget=short", "--train_flags=--depth=57"], "Row identity of table1: depth"),
        (["table1", "--budget=short", "--train_flags=--seed=3"], "set for each run by the exp"),
        (["table1", "--budget=short", "--train_flags=--early_stopping_epochs=3"], "last step"),
        (["table1", "--table=mine.toml"], "A table of the paper or one of your own"),
        (["--table=absent.toml", "--budget=smoke"], "absent.toml"),
        (["report"], "must be the folder of an experiment"),
    ],
)
def test_wrong_flags_are_refused_before_anything_runs(server, tmp_path, flags, words):
    out_dir = tmp_path / "out"
    code, out, err = server.call(*EXPERIMENTS, *flags, f"--output_dir={out_dir}")
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert words in err
    assert not out_dir.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TABLES) - {"degradation"}))
def test_smoke_of_all_tables(server, tmp_path, name):
    flags = ("--budget=smoke", f"--output_dir={tmp_path / 'out'}")
    code, out, err = server.call(*EXPERIMENTS, name, *flags, timeout=3600)
    assert (code, err) == (0, ""), out
    assert set(states(tmp_path / "out", f"{name}-smoke-3")) == {"finished"}


def wait_for_step(folder, step, others_than=None):
    """Waits until a log tells of a step; returns the log."""
    end = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < end:
        for log in sorted(folder.glob("out/runs/*/*.log")):
            steps = re.findall(r"step ([0-9,]+)", log.read_text())
            if log != others_than and steps and int(steps[-1].replace(",", "")) >= step:
                return log
        time.sleep(0.05)
    raise AssertionError(f"no step {step} in {TIMEOUT_SECONDS} s")


def trainer_of(parent):
    """The process that the runner has started."""
    children = pathlib.Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for child in map(int, children):
        if b"train" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("the runner has no run")
