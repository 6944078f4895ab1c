"""python -m keras_preact.benchmark --modes=server as a user starts it."""

import csv
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = "tensorflow_model_server"
MOCK = ROOT / "tests" / "exporting" / "fake_model_server.py"
TIMEOUT_SECONDS = 600
FLAGS = (
    "--modes=server",
    "--models=8",
    "--image_size=8",
    "--rounds=1",
    "--seconds=1",
    "--precisions=float32",
)

pytestmark = pytest.mark.slow


def command(server, folder, *flags):
    program = [sys.executable, "-m", "keras_preact.benchmark"]
    return [*program, *FLAGS, f"--server={server}", f"--csv={folder}/a.csv", *flags]


@pytest.fixture
def mock(tmp_path):
    """A mock server in a session; it needs batching and warm-up requests."""
    path = tmp_path / "mock"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{MOCK}" "$@"\n')
    path.chmod(0o755)
    return path


def measure(server, folder, *flags):
    """The rows of the CSV and the output of a benchmark that succeeds."""
    done = subprocess.run(
        command(server, folder, *flags),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = list(csv.DictReader((folder / "a.csv").read_text().splitlines()))
    for row in rows:
        assert row["error"] == "" and float(row["error_share"]) == 0, row
        assert float(row["requests_per_second"]) > 1
        p50, p95, p99 = (float(row[f"p{percent}_milliseconds"]) for percent in (50, 95, 99))
        assert 0 < p50 <= p95 <= p99 < 40_000
        assert float(row["first_answer_seconds"]) > 0
        assert 100 < float(row["peak_memory_mebibytes"]) < 4000
        assert 0 < float(row["clients_cpu_share"]) < 1
    return rows, done.stdout


def test_a_mock_server_is_loaded_over_both_protocols(mock, tmp_path):
    ours = ("--frameworks=keras_preact", "--batching=written", "--clients=1,4")
    rows, shown = measure(mock, tmp_path, *ours)
    assert [(row["request"], row["clients"]) for row in rows] == [
        (request, clients)
        for request in ("rest_pixels", "rest_jpeg", "grpc_pixels", "grpc_jpeg")
        for clients in ("1", "4")
    ]
    assert "resnet8 float32, keras_preact, batching written; first answer after" in shown


def test_the_real_server_is_loaded_with_both_exports(tmp_path):
    server = shutil.which(SERVER) or pytest.skip(f"{SERVER} is not on the PATH")
    rows, shown = measure(server, tmp_path, "--clients=1,16")
    servers = {(row["framework"], row["batching"]) for row in rows}
    assert servers == {(f, b) for f in ("keras_preact", "keras") for b in ("written", "none")}
    assert len(rows) == 2 * 2 * (4 + 2)
    assert "TensorFlow ModelServer: " in shown


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_benchmark_that_is_ended_leaves_no_server(mock, tmp_path, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    flags = ("--frameworks=keras_preact", "--batching=written", "--seconds=60")
    with subprocess.Popen(
        command(mock, tmp_path, *flags),
        cwd=ROOT,
        env={"TMPDIR": str(temporary), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not any("load.py" in line for line in _commands_of(process.pid)):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        assert _commands_with(str(temporary))
        process.send_signal(number)
        process.wait(60)
    time.sleep(5)
    assert not _commands_with(str(temporary))
    left = [path.name for path in temporary.glob("keras_preact*")]
    # Nobody cleans up after SIGKILL.
    assert number == signal.SIGKILL or not left


def _commands():
    """(parent's id, command line) of every process."""
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            yield parent, (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def _commands_of(pid):
    return [line for parent, line in _commands() if parent == pid]


def _commands_with(text):
    return [line for _, line in _commands() if text in line]
