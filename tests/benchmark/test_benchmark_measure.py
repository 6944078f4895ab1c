import dataclasses
import io
import json
import subprocess
import sys
import types

import numpy as np
import pytest

from keras_preact.benchmark import measure, ours, runner, stock_keras
from keras_preact.benchmark.job import Job, make_net


def make_job(framework, mode="train", precision="float32", steps=2):
    return Job(framework, mode, precision, make_net(8), batch_size=4, image_size=8, steps=steps)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", ["train", "inference"])
@pytest.mark.parametrize("framework", [ours, stock_keras])
def test_steps_are_taken_and_timed(framework, mode, precision):
    take = framework.prepare(make_job("", mode, precision))
    for steps in (1, 2):
        assert 0 < take(steps) < 600


@pytest.mark.parametrize("framework", [ours, stock_keras])
def test_requests_to_an_export_are_answered_and_timed(framework):
    take = framework.prepare(make_job("", "serving"))
    assert 0 < take(2) < 600


@pytest.mark.parametrize(
    "framework", ["torch", pytest.param("torch_compile", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_pytorch_takes_and_times_steps(mode, precision, framework):
    pytest.importorskip("torch")
    from keras_preact.benchmark import pytorch

    take = pytorch.prepare(make_job(framework, mode, precision))
    for steps in (1, 2):
        assert 0 < take(steps) < 600


def test_pytorch_refuses_mixed_float16_without_a_gpu():
    torch = pytest.importorskip("torch")
    from keras_preact.benchmark import pytorch

    if torch.cuda.is_available():
        pytest.skip("has a GPU")
    with pytest.raises(ValueError, match="mixed_float16 is for GPUs"):
        pytorch.prepare(make_job("torch", precision="mixed_float16"))


def test_the_throughput_is_of_the_steps_after_the_first_and_the_warm_up():
    taken = []

    def take(steps):
        taken.append(steps)
        return 0.5 * steps

    framework = types.SimpleNamespace(prepare=lambda job: take, device=lambda: ("CPU", None))
    result = measure.measure(framework, make_job("keras", steps=7))
    assert taken == [1, measure.WARM_UP_STEPS, 7]
    assert result["images_per_second"] == pytest.approx(4 / 0.5)
    assert result["steps"] == 7
    assert result["device"] == "CPU" and result["device_memory_mebibytes"] is None


@pytest.mark.parametrize(
    ("step_seconds", "tries"),
    [(2.0, [10]), (0.5, [10]), (0.01, [10, 600]), (1e-12, [10, 1000, 100_000])],
)
def test_a_fast_device_takes_as_many_steps_as_fill_some_seconds(step_seconds, tries):
    taken = []

    def take(steps):
        taken.append(steps)
        return step_seconds * steps

    assert measure.timed(take, None) == (tries[-1], step_seconds * tries[-1])
    assert taken == tries


def test_a_first_try_that_was_slow_to_begin_is_followed_by_others():
    seconds = iter([4.9, 1.0, 6.0])
    steps, _ = measure.timed(lambda steps: next(seconds), None)
    assert steps >= 100


@pytest.mark.slow
def test_the_peak_of_memory_outlives_what_was_freed():
    before = measure.peak_memory_mebibytes()
    held = np.ones(int(before + 300) * 2**20, np.uint8)
    del held
    assert measure.peak_memory_mebibytes() >= before + 290


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        f"import json, runpy\nmeasure = runpy.run_path({measure.__file__!r})\n"
        "print(json.dumps({'mebibytes': measure['peak_memory_mebibytes']()}))\n"
    )
    # A bare Python has some 10 MiB, this process with TensorFlow hundreds.
    assert runner.start_script(script, {})["mebibytes"] < 60 < measure.peak_memory_mebibytes()


def test_a_compiler_that_is_missing_is_told_in_a_line(tmp_path):
    pytest.importorskip("torch")
    job = dataclasses.asdict(make_job("torch_compile"))
    done = subprocess.run(
        [sys.executable, "-P", measure.__file__],
        input=json.dumps(job),
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "CXX": "no-compiler"}
        | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    error = json.loads(done.stdout.splitlines()[-1])["error"]
    assert error.startswith("RuntimeError: torch.compile: ") and "compiler" in error


@pytest.mark.parametrize("framework", ["torch", "torch_compile"])
def test_pytorch_is_measured_without_tensorflow_in_its_process(tmp_path, framework):
    # A stand-in for PyTorch that reports the other imported frameworks.
    (tmp_path / "torch.py").write_text(
        "import sys\nraise RuntimeError(sorted({'tensorflow', 'keras'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", measure.__file__],
        input=json.dumps({"framework": framework}),
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert json.loads(done.stdout) == {"error": "RuntimeError: []"}


def test_an_answer_is_the_last_line_and_an_error_its_last_line(capsys, monkeypatch):
    def ask(function):
        monkeypatch.setattr(sys, "stdin", io.StringIO('{"net": {"units": [{"strides": 2}]}}'))
        measure.answer(function)
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    assert ask(lambda job: {"strides": job.net.units[0].strides}) == {"strides": 2}

    def fail(job):
        raise MemoryError("Graph execution error:\n\nout of memory at node 7\n")

    assert ask(fail) == {"error": "MemoryError: out of memory at node 7"}
