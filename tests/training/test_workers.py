"""Two workers: processes of their own that meet over loopback."""

import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from same_runs import saved

from keras_preact.training import TrainConfig, checkpoint, metrics, propagation_log, run
from keras_preact.training.checkpoint_folder import step_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
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


def free_addresses(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("localhost", 0))
        return [f"localhost:{each.getsockname()[1]}" for each in sockets]


def start(addresses, index, log, **changes):
    """A worker; its output goes to the file log."""
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    flags = [f"--{name}={value}" for name, value in {**FLAGS, **changes}.items()]
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "train.py", *flags],
            cwd=ROOT,
            env={**os.environ, "TF_CONFIG": json.dumps(cluster)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )


@contextlib.contextmanager
def workers(folder, **changes):
    """Two of them, ended at the end whatever has happened, with the files of their output."""
    addresses, logs = free_addresses(2), [folder / f"log{index}" for index in range(2)]
    processes = [start(addresses, index, logs[index], **changes) for index in range(2)]
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
    [first] = metrics.read(tmp_path / "one" / "metrics.csv")
    [second] = metrics.read(tmp_path / "two" / "metrics.csv")
    assert second.eval_accuracy == first.eval_accuracy
    for name in ("train_loss", "train_accuracy", "eval_loss"):
        assert getattr(second, name) == pytest.approx(getattr(first, name), rel=1e-3), name
    left, right = (propagation_log.read(tmp_path / n / "propagation.csv") for n in ("one", "two"))
    assert left.steps.tolist() == right.steps.tolist() == [0, 3, 6]
    np.testing.assert_allclose(right.gradient_norm, left.gradient_norm, rtol=1e-3)
    assert "Finished" in logs[0].read_text() and "Finished" not in logs[1].read_text()
    assert len(list((tmp_path / "two" / "tensorboard" / "train").iterdir())) == 1
    decision = json.loads((tmp_path / "two" / "config.json").read_text())["decision"]
    assert (decision["strategy"], decision["workers"]) == ("multi_worker", 2)


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
    assert metrics.read(tmp_path / "run" / "metrics.csv")[-1].step == step + 3


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
