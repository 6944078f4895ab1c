"""train.py with its output going to a broken pipe, a full disk or a closed terminal."""

import os
import signal
import subprocess
import sys

import pytest
from fork_server import ROOT

from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.reporting import metrics_file

TRAIN = ("train.py", "--dataset=digits", "--depth=8", "--log_steps=1", "--global_batch_size=128")
TIMEOUT_SECONDS = 180


def newest(folder):
    return checkpoint.find(folder / "checkpoints", "newest")


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        ("broken", ""),
        ("closed", "closed"),
        pytest.param("/dev/full", "/dev/full", marks=pytest.mark.slow),
        pytest.param("closed", "", marks=pytest.mark.slow),
        pytest.param("", "closed", marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_as_usual_if_its_output_cannot_be_written(tmp_path, server, stdout, stderr):
    run = tmp_path / "run"
    code, _, errors = server.call(
        *TRAIN, "--train_steps=3", f"--run_dir={run}", stdout=stdout, stderr=stderr
    )
    assert (code, errors) == (0, "")
    assert newest(run) == str(run / "checkpoints" / "step-3")
    assert [row.step for row in metrics_file.read(run / "metrics.csv")] == [3]


@pytest.mark.parametrize("stdout", ["broken", "closed", "/dev/full"])
def test_a_refusal_keeps_its_exit_code(tmp_path, server, stdout):
    code, _, errors = server.call(*TRAIN, "--depth=21", f"--run_dir={tmp_path}", stdout=stdout)
    assert code == 2 and errors.startswith("Error: ")
    code, _, _ = server.call("train.py", "--help", stdout=stdout)
    assert code == 0


def start(folder, stdout, **options):
    """Starts train.py with steps for minutes, to be stopped."""
    command = [sys.executable, *TRAIN, "--train_steps=100000", f"--run_dir={folder}"]
    return subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stdout, **options)


def read_to(descriptor, words):
    """Reads the output of a program up to some words."""
    text = b""
    while words not in text:
        text += os.read(descriptor, 1000)
        assert text.strip(), "the program has ended"


def assert_saved(folder, process, code):
    assert process.wait(TIMEOUT_SECONDS) == code
    step = int(newest(folder).rpartition("-")[2])
    assert step > 2


@pytest.mark.slow
def test_ctrl_c_saves_though_the_reader_of_a_pipe_dies_of_it(tmp_path):
    reader, writer = os.pipe()
    with start(tmp_path, writer) as process:
        os.close(writer)
        read_to(reader, b"step 2 ")
        os.close(reader)
        process.send_signal(signal.SIGINT)
        assert_saved(tmp_path, process, 130)


@pytest.mark.slow
def test_under_nohup_training_goes_on_when_its_terminal_is_closed(tmp_path):
    terminal, side = os.openpty()
    # As a shell starts a program that is to outlive its terminal.
    nohup = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start(tmp_path, side, start_new_session=True, **nohup) as process:
        os.close(side)
        read_to(terminal, b"loss ")
        os.close(terminal)  # from now on, writing fails with EIO
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        process.send_signal(signal.SIGTERM)
        assert_saved(tmp_path, process, 143)


@pytest.mark.slow
def test_sighup_saves_as_sigterm_does(tmp_path):
    reader, writer = os.pipe()
    with start(tmp_path, writer) as process:
        os.close(writer)
        read_to(reader, b"step 2 ")
        process.send_signal(signal.SIGHUP)
        assert_saved(tmp_path, process, 129)
    os.close(reader)
