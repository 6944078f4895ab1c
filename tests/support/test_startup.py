"""Programs show their own lines, and TensorFlow's errors, but none of its notices."""

import os
import pathlib
import pty
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NOTICES = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795342939.684975    6888 port.cc:153] oneDNN custom operations are on.
I0000 00:00:1795342939.685307    6888 cudart_stub.cc:31] Could not find cuda drivers on your machine
E0000 00:00:1795342944.605992    6888 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA
E0000 00:00:1795342977.545102    6888 util.cc:131] oneDNN supports DT_UINT8 only on platforms with
W0000 00:00:1733168092.877119    1177 computation_placer.cc:177] computation placer already \
registered. Please check linkage and avoid linking the same target more than once.
E0000 00:00:1733168092.877119    1177 cuda_dnn.cc:8310] Unable to register cuDNN factory: one has
E0000 00:00:1733168092.877119    1177 node_def_util.cc:680] NodeDef mentions attribute \
use_unbounded_threadpool which is not in the op definition: Op<name=MapDataset
2026-11-22 10:22:19.684975: I tensorflow/core/platform/cpu_feature_guard.cc:210] This binary is
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
fully_quantize: 0, inference_type: 6, input_inference_type: UINT8, output_inference_type: UINT8
"""
ERRORS = """\
E0000 00:00:1795342977.545102    6888 cuda_dnn.cc:12] Could not create cudnn handle
F0000 00:00:1795342977.545102    6888 tensor.cc:844] Check failed: dtype() == expected_dtype
    @     0x7f3c2e0d3b2f  tensorflow::Tensor::CheckType()
"""
# As the door, the package imports nothing that prints.
START = """
import ctypes, os, sys
sys.argv[0] = "keras-preact"
from keras_preact.support import startup
startup.quiet()
native = lambda text: ctypes.CDLL(None).write(2, text, len(text))
"""


def call(program, **options):
    """Runs a program once native messages are filtered."""
    return subprocess.run(
        [sys.executable, "-c", START + program],
        cwd=ROOT,
        text=True,
        timeout=120,
        stdout=subprocess.PIPE,
        **{"stderr": subprocess.PIPE} | options,
    )


def test_notices_are_dropped_and_errors_shown():
    done = call(f"native({(NOTICES + ERRORS).encode()!r})")
    assert done.stderr == ERRORS


def test_what_native_code_says_before_it_aborts_is_shown():
    done = call(f"native({ERRORS.encode()!r})\nos.abort()")
    assert done.returncode == -6
    assert done.stderr == ERRORS


def test_python_prints_past_the_filter_and_finds_the_terminal_at_the_other_end():
    leader, follower = pty.openpty()
    done = call(
        "print('I0000 1 from Python', sys.stderr.isatty(), file=sys.stderr)", stderr=follower
    )
    os.close(follower)
    assert done.returncode == 0
    assert b"I0000 1 from Python True" in os.read(leader, 10_000)
    os.close(leader)


def test_a_second_call_changes_nothing():
    done = call("once = sys.stderr\nstartup.quiet()\nassert sys.stderr is once")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("stderr", ["closed", "without grep"])
def test_where_nothing_can_be_filtered_programs_run(tmp_path, stderr):
    shell = "exec " + '"$@"' + (" 2>&-" if stderr == "closed" else "")
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", sys.executable, "-c", f"{START}print(1)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("debug", [False, True])
def test_a_run_and_its_export_print_our_lines_alone(tmp_path, debug):
    run = tmp_path / "run"
    train = ["train.py", "--dataset=digits", "--depth=8", "--train_steps=3", f"--run_dir={run}"]
    export = ["export.py", f"--run_dir={run}", "--tflite=int8", "--int8_loss_points=100"]
    for command in (train, export):
        done = subprocess.run(
            [sys.executable, *command, *(["--debug"] if debug else [])],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            env={name: text for name, text in os.environ.items() if not name.startswith("TF_")},
        )
        assert done.returncode == 0, done.stderr
        assert ("oneDNN" in done.stderr) == debug
        if not debug:
            assert done.stderr == ""
