"""keras-preact doctor, as a user starts it."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.doctor import gpu_tests, run, trials
from keras_preact.doctor.lines import Line, text

ROOT = pathlib.Path(__file__).resolve().parents[2]


def call(*arguments, timeout=120, **environment):
    return subprocess.run(
        [sys.executable, "-m", "keras_preact", "doctor", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_each_line_ends_in_ok_or_in_what_to_do():
    assert text(Line("cuDNN", "9.24")).endswith("  ok")
    assert text(Line("cuDNN", "9.3\nold", "pip install")).endswith("9.3 old  ->  pip install")


def test_a_check_that_fails_is_a_line_and_the_others_go_on():
    def broken():
        yield Line("first", "fine")
        raise RuntimeError("a bug")

    first, second = run.guarded(run.Section("Machine", broken()))
    assert first.advice is None
    assert second.finding.endswith("RuntimeError: a bug") and second.advice


def test_a_machine_without_cudnn_is_told_what_to_install():
    # Played: the probe and TensorFlow's process answer as they would there.
    facts = {
        "devices": 1,
        "device_files": True,
        "kernel_driver": "570.86.15",
        "driver": {
            "error": 0,
            "cuda": 12080,
            "gpus": [{"name": "H200", "memory_bytes": 2**37, "capability": [9, 0]}],
        },
        "nvml": True,
        "build": {"cuda_version": "12.5.1", "cudnn_version": "9", "is_cuda_build": True},
        "libraries": {"libcudart.so.12": "libcudart.so.12", "libcudnn.so.9": None},
        "cudnn": None,
        "ptxas": "/usr/local/cuda/bin/ptxas",
    }

    class Played:
        def ask(self, name, **options):
            return {"gpus": [], "tf32": True} if name == "devices" else {"error": "no more"}

    found = run.sections(Played(), {}, lambda: facts)
    lines = {line.subject: line for section in found for line in run.guarded(section)}
    assert lines["CUDA libraries"].advice == "pip install -r requirements-gpu.txt"
    assert lines["GPUs"].finding == "TensorFlow sees none" and lines["GPUs"].advice
    assert lines["NVIDIA driver"].advice is None


@pytest.mark.slow
def test_the_whole_report_takes_less_than_a_minute():
    began = time.monotonic()
    done = call()
    seconds = time.monotonic() - began
    assert seconds < 75  # and the import of Python's own modules on a busy machine
    assert done.stderr == "" and "Traceback" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    assert len(lines) > 15
    for line in lines:
        assert line.endswith("  ok") or "  ->  " in line
    to_do = [line for line in lines if "  ->  " in line and "pytest" not in line]
    assert done.returncode == (1 if to_do else 0)
    assert re.search(r"train ResNet-\d+ +[\d,]+ images/s", done.stdout)


def test_without_tensorflow_it_says_what_to_install(tmp_path):
    for name in ("tensorflow", "keras", "numpy"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No {name}')\n")
    done = call("--json", "--seconds=60", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stderr) == (1, "")
    lines = {line["subject"]: line for line in json.loads(done.stdout)}
    assert 'pip install "keras_preact[train]"' in lines["TensorFlow"]["advice"]
    assert "float32" not in lines


def test_time_that_is_too_short_is_told_not_raised():
    done = call("--json", "--seconds=1")
    assert done.returncode == 1
    lines = {line["subject"]: line for line in json.loads(done.stdout)}
    assert lines["TensorFlow"]["finding"].startswith("not finished in")


@pytest.mark.parametrize("wrong", ["0", "3601", "many"])
def test_wrong_seconds_are_refused(wrong):
    done = call(f"--seconds={wrong}")
    assert done.returncode == 2
    assert f"from 1 to 3600. Received: '{wrong}'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_its_child_without_a_traceback(number):
    command = [sys.executable, "-m", "keras_preact", "doctor"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as doctor:
        for line in doctor.stdout:
            if line.startswith("TensorFlow"):
                break
        time.sleep(0.5)
        children = pathlib.Path(f"/proc/{doctor.pid}/task/{doctor.pid}/children")
        ours = children.read_text().split() if children.exists() else []
        doctor.send_signal(number)
        _, errors = doctor.communicate(timeout=60)
    assert (doctor.returncode, errors) == (128 + number, "")
    assert not any(pathlib.Path(f"/proc/{child}").exists() for child in ours)


def test_the_reference_has_the_gradients_of_automatic_differentiation():
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(2, 2, 5, 6, 3))
    first, second = rng.normal(size=(2, 3, 3, 3, 3))

    def normalized(x):
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        return tf.nn.relu((x - mean) / tf.sqrt(variance + 1e-5))

    inputs = [tf.constant(value) for value in (x, first, second)]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        middle = tf.nn.conv2d(normalized(inputs[0]), inputs[1], 1, "SAME")
        y = inputs[0] + tf.nn.conv2d(normalized(middle), inputs[2], 1, "SAME")
        loss = tf.reduce_sum(y * weights)
    expected = [y, *tape.gradient(loss, inputs)]
    for value, wanted in zip(trials._reference(x, first, second, weights), expected, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_residual_unit_is_measured(precision):
    errors = trials.unit(precision, jit=False)["errors"]
    assert 0 < errors["output"] < 1e-2 and 0 < errors["gradient"] < 0.15


def test_the_tests_marked_gpu_are_those_of_the_list():
    whole = (ROOT / "tests/test_gpu.py").read_text()
    marked = set(re.findall(r"^def (test_\w+)", whole, re.MULTILINE))
    resumed = (ROOT / "tests/training/test_exact_resume.py").read_text()
    mark = r"(?:marks=ON_GPUS|^@pytest\.mark\.gpu).*?^def (test_\w+)"
    marked |= set(re.findall(mark, resumed, re.DOTALL | re.MULTILINE))
    assert {test.name for test in gpu_tests.TESTS} == marked
