"""Two workers: processes that meet over loopback."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from loopback import free_addresses
from same_runs import assert_same_runs, saved
from small_labels import write_csv

from keras_preact.training import TrainConfig, run
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.reporting import metrics_file, propagation_file
from keras_preact.version import __version__

ROOT = pathlib.Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 240
FLAGS = {
    "dataset": "digits",
    "depth": 8,
    "global_batch_size": 32,
    "train_steps": 6,
    "schedule_steps": 6,
    "warmup_steps": 0,
    "learning_rate": 0.05,
    "sync_bn": True,
    "log_steps": 2,
}


def start(addresses, index, log, root=ROOT, **changes):
    """Starts a worker of the repository in root; its output goes to the file log."""
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    flags = [f"--{name}={value}" for name, value in {**FLAGS, **changes}.items()]
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "train.py", *flags],
            cwd=root,
            env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def workers(folder, second=(), **changes):
    """Starts two workers, and kills them at the end; yields them and the files of their output.

    second: flags that differ for the second worker.
    """
    addresses, logs = free_addresses(2), [folder / f"log{index}" for index in range(2)]
    every = (changes, {**changes, **dict(second)})
    processes = [start(addresses, n, logs[n], **own) for n, own in enumerate(every)]
    try:
        yield processes, logs
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait_for(log, words):
    end = time.monotonic() + TIMEOUT_SECONDS
    while words not in log.read_text(errors="replace"):
        assert time.monotonic() < end, log.read_text(errors="replace")[-2000:]
        time.sleep(0.1)


def codes(processes):
    return [process.wait(TIMEOUT_SECONDS) for process in processes]


def refused(folder, second, **changes):
    """Runs two workers that both end with one error; returns its lines."""
    with workers(folder, second, **changes) as (processes, logs):
        ended, texts = codes(processes), [log.read_text() for log in logs]
    assert ended == [2, 2], texts
    assert not any("Traceback" in text for text in texts)
    errors = [text[text.index("Error: ") :] for text in texts]
    assert errors[0] == errors[1]
    return errors[0].splitlines()


def contents(folder):
    """Returns contents and modification times of all files below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def newest(folder):
    return checkpoint.find(folder / "checkpoints", "newest")


def test_two_workers_train_as_one_device_does_and_the_chief_alone_writes(tmp_path):
    records = {"log_propagation_steps": 3}
    run(TrainConfig(**FLAGS, **records, run_dir=str(tmp_path / "one"), devices="1"))
    with workers(tmp_path, run_dir=tmp_path / "two", **records) as (processes, logs):
        assert codes(processes) == [0, 0], logs[0].read_text()[-2000:]
    one, two = saved(tmp_path / "one"), saved(tmp_path / "two")
    for name, value in one.items():
        if name.startswith(("model/", "optimizer/")):
            np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
    [first] = metrics_file.read(tmp_path / "one" / "metrics.csv")
    [second] = metrics_file.read(tmp_path / "two" / "metrics.csv")
    assert second.eval_accuracy == first.eval_accuracy
    for name in ("train_loss", "train_accuracy", "eval_loss"):
        assert getattr(second, name) == pytest.approx(getattr(first, name), rel=1e-3), name
    left, right = (propagation_file.read(tmp_path / n / "propagation.csv") for n in ("one", "two"))
    assert left.steps.tolist() == right.steps.tolist() == [0, 3, 6]
    np.testing.assert_allclose(right.gradient_norm, left.gradient_norm, rtol=1e-3)
    assert "Finished" in logs[0].read_text() and "Finished" not in logs[1].read_text()
    assert len(list((tmp_path / "two" / "tensorboard" / "train").iterdir())) == 1
    plan = json.loads((tmp_path / "two" / "config.json").read_text())["decision"]
    assert (plan["strategy"], plan["workers"]) == ("multi_worker", 2)


@pytest.mark.slow
def test_a_worker_that_dies_is_named_by_the_other_and_all_can_resume(tmp_path):
    long = {"train_steps": 100_000, "schedule_steps": 100_000, "checkpoint_steps": 2}
    with workers(tmp_path, run_dir=tmp_path / "run", **long) as (processes, logs):
        wait_for(logs[0], "step 10 of")
        processes[1].kill()
        died = time.monotonic()
        assert processes[0].wait(TIMEOUT_SECONDS) == 75
        assert time.monotonic() - died < 120
    lines = [line for line in logs[0].read_text().splitlines() if line.startswith("Error:")]
    assert len(lines) == 1 and "--resume" in lines[0]
    assert "worker 1 at localhost:" in lines[0]

    step = step_of(newest(tmp_path / "run"))
    assert step >= 8  # the line of step 10 comes before its checkpoint
    again = {**long, "train_steps": step + 3, "resume": True}
    with workers(tmp_path, run_dir=tmp_path / "run", **again) as (processes, logs):
        assert codes(processes) == [0, 0], logs[0].read_text()[-2000:]
    assert metrics_file.read(tmp_path / "run" / "metrics.csv")[-1].step == step + 3


def test_a_signal_to_one_worker_stops_all_after_the_same_step(tmp_path):
    long = {"train_steps": 100_000, "schedule_steps": 100_000}
    with workers(tmp_path, run_dir=tmp_path / "run", **long) as (processes, logs):
        wait_for(logs[0], "step 4 of")
        processes[1].send_signal(signal.SIGTERM)
        assert codes(processes) == [143, 143], logs[0].read_text()[-2000:]
    steps = [
        re.search(r"Stopped: SIGTERM, after step (\S+), saved as", log.read_text()) for log in logs
    ]
    assert steps[0][1] == steps[1][1] == f"{step_of(newest(tmp_path / 'run')):,}"


@pytest.mark.slow
def test_a_worker_that_never_comes_is_named_after_the_time_given(tmp_path):
    addresses, log = free_addresses(2), tmp_path / "log"
    process = start(addresses, 0, log, run_dir=tmp_path / "run", cluster_timeout_seconds=3)
    try:
        assert process.wait(TIMEOUT_SECONDS) == 75
    finally:
        process.kill()
    assert f"worker 1 at {addresses[1]}" in log.read_text()
    assert not (tmp_path / "run").exists()


def test_workers_of_other_flags_end_with_one_error_that_names_them_and_write_nothing(tmp_path):
    second = {"label_smoothing": 0.5, "warmup_learning_rate": 1, "seed": 3, "global_batch_size": 64}
    _, head, *rows = refused(tmp_path, second, run_dir=tmp_path / "runs" / "new")
    assert head.split() == ["worker", "0", "worker", "1"]
    assert sorted(row.split() for row in rows) == [
        ["global_batch_size", "32", "64"],
        ["label_smoothing", "0.0", "0.5"],
        ["seed", "0", "3"],
        ["warmup_learning_rate", "0.01", "1.0"],
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log0", "log1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second"),
    [
        # The second worker refuses the flag itself: two workers cannot share it.
        ({}, {"global_batch_size": 33}),
        ({"augmentation": "none"}, {"augmentation": "pad_crop"}),
        ({"devices": "cpu", "precision": "float32"}, {"precision": "mixed_bfloat16"}),
    ],
)
def test_each_flag_that_differs_is_named(tmp_path, first, second):
    lines = refused(tmp_path, second, run_dir=tmp_path / "run", **first)
    assert [line.split()[0] for line in lines[2:]] == list(second)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_another_version_of_the_package_is_named(tmp_path):
    other = tmp_path / "clone"
    shutil.copytree(ROOT / "keras_preact", other / "keras_preact")
    shutil.copy(ROOT / "train.py", other)
    (other / "keras_preact" / "version.py").write_text('__version__ = "0.0.9"\n')
    lines = refused(tmp_path, {"root": other}, run_dir=tmp_path / "run")
    assert [re.split(" {2,}", line.strip()) for line in lines[2:]] == [
        ["version of keras_preact", __version__, "0.0.9"]
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run(TrainConfig(**FLAGS, run_dir=str(folder / "run"), devices="1"))
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "row"),
    [
        ({"resume": True}, {"resume": False}, ["resume", "True", "False"]),
        ({"resume": False}, {"resume": True}, ["resume", "False", "True"]),
        ({"overwrite": True}, {"overwrite": False}, ["overwrite", "True", "False"]),
        ({"overwrite": False}, {"overwrite": True}, ["overwrite", "False", "True"]),
        (
            {"mode": "evaluate", "checkpoint": "newest"},
            {"checkpoint": "best"},
            ["checkpoint", "newest", "best"],
        ),
    ],
)
def test_a_wish_of_one_worker_alone_leaves_a_run_unchanged(tmp_path, finished, first, second, row):
    before = contents(finished)
    lines = refused(tmp_path, second, run_dir=finished, **first)
    assert [line.split() for line in lines[2:]] == [row]
    assert contents(finished) == before


@pytest.mark.slow
def test_workers_evaluate_a_run_as_one_process_does(tmp_path, finished):
    with workers(tmp_path, run_dir=finished, mode="evaluate") as (processes, logs):
        assert codes(processes) == [0, 0], logs[0].read_text()
    [row] = metrics_file.read(finished / "metrics.csv")
    lines = [line for line in logs[0].read_text().splitlines() if " at step 6: " in line]
    assert len(lines) == 1 and f"accuracy {row.eval_accuracy:.2%}" in lines[0]
    assert " at step 6: " not in logs[1].read_text()


PHOTOS = {"dataset": "folder", "image_size": 8, "global_batch_size": 4, "deterministic": True}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for place, (split, name) in enumerate((s, n) for s in ("train", "val") for n in ("ant", "bee")):
        for number in range(6):
            path = root / split / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(10 * place + number).integers(0, 256, (9, 9, 3))
            path.write_bytes(tf.io.encode_png(pixels.astype(np.uint8)).numpy())
    return root


@pytest.mark.slow
def test_other_images_of_the_same_names_and_number_are_refused(tmp_path, photos):
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    shutil.copy(other / "val" / "ant" / "2.png", other / "val" / "bee" / "2.png")
    places = {"data_dir": photos}, {"data_dir": other}
    lines = refused(tmp_path, places[1], run_dir=tmp_path / "run", **PHOTOS, **places[0])
    assert lines[2].split() == ["data_dir", str(photos), str(other)]
    assert [line.split()[:2] for line in lines[3:]] == [["eval", "images"]]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_same_images_may_lie_elsewhere_for_each_worker(tmp_path, photos):
    other = tmp_path / "mounted" / "elsewhere"
    shutil.copytree(photos, other)
    for name, second in (("one", {}), ("two", {"data_dir": other, "max_runtime_minutes": 60})):
        flags = {**PHOTOS, "data_dir": photos, "run_dir": tmp_path / name}
        with workers(tmp_path, second, **flags) as (processes, logs):
            assert codes(processes) == [0, 0], [log.read_text()[-2000:] for log in logs]
    assert_same_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_worker_refused_for_its_own_flags_is_named_by_the_other_after_the_time_given(tmp_path):
    flags = {"run_dir": tmp_path / "run", "cluster_timeout_seconds": 20}
    with workers(tmp_path, {"depth": 9}, **flags) as (processes, logs):
        assert codes(processes) == [75, 2]
    assert "depth" in logs[1].read_text().partition("Error: ")[2]
    said = logs[0].read_text().partition("Error: ")[2]
    assert said.startswith("Missing after 20 seconds: worker 1 at localhost:")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_worker_that_does_not_find_its_data_is_named_by_the_other_at_once(tmp_path, photos):
    flags = {**PHOTOS, "data_dir": photos, "run_dir": tmp_path / "run"}
    with workers(tmp_path, {"data_dir": tmp_path / "none"}, **flags) as (processes, logs):
        assert codes(processes) == [75, 2]
    assert "Lost worker 1 at localhost:" in logs[0].read_text().partition("Error: ")[2]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_workers_evaluate_several_labels_and_the_test_split_as_one_device_does(tmp_path):
    options = {
        "dataset": "csv",
        "data_dir": write_csv(tmp_path, weighted=True),
        "image_size": 16,
        "global_batch_size": 18,
        "class_weights": "auto",
        "early_stopping_epochs": 10,
    }
    one = {**FLAGS, **options, "data_dir": str(options["data_dir"])}
    run(TrainConfig(**one, run_dir=str(tmp_path / "one"), devices="1"))
    with workers(tmp_path, run_dir=tmp_path / "two", **options) as (processes, logs):
        assert codes(processes) == [0, 0], logs[0].read_text()[-2000:]
    pairs = zip(
        *(metrics_file.read(tmp_path / name / "metrics.csv") for name in ("one", "two")),
        strict=True,
    )
    for first, second in pairs:
        assert second.scores == pytest.approx(first.scores, rel=1e-3, abs=1e-3)
    results = [json.loads((tmp_path / n / "test.json").read_text()) for n in ("one", "two")]
    assert results[0]["checkpoint"] == results[1]["checkpoint"] == "best"
    assert results[1]["scores"] == pytest.approx(results[0]["scores"], rel=1e-3, abs=1e-3)
    assert "Test split" in logs[0].read_text() and "Test split" not in logs[1].read_text()
