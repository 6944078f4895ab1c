"""train.py and export.py as a user starts them."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 300


def call(*arguments, **options):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        **options,
    )


@pytest.mark.slow
def test_two_epochs_are_trained_evaluated_exported_and_classified(tmp_path):
    run = tmp_path / "run"
    recipe = "--flagfile=configs/digits_resnet20.flags"
    trained = call("train.py", recipe, f"--run_dir={run}", "--train_epochs=2", "--scale_schedule")
    assert trained.returncode == 0, trained.stderr
    last_lines = trained.stdout.strip().splitlines()[-6:]
    assert any(str(run / "curves.png") in line for line in last_lines)
    accuracy = float(trained.stdout.rpartition("accuracy ")[2].partition("%")[0])
    assert accuracy > 15  # chance is 10 %

    evaluated = call("train.py", "--mode=evaluate", f"--run_dir={run}")
    assert f"accuracy {accuracy:.2f}%" in evaluated.stdout, evaluated.stderr

    exported = call("export.py", f"--run_dir={run}", "--tflite=")
    assert exported.returncode == 0, exported.stderr
    assert f"the Keras model has {accuracy:.2f}% right" in exported.stdout
    assert f"report: {run / 'export' / 'report.md'}" in exported.stdout
    lines = [line.strip() for line in exported.stdout.splitlines()]
    python, *arguments = lines[lines.index("Classify an image:") + 1].split()
    assert pathlib.Path(shutil.which(python)).samefile(sys.executable)
    classified = call(*arguments)
    assert classified.returncode == 0, classified.stderr
    signature = tf.saved_model.load(str(run / "export/saved_model/1")).signatures["serving_default"]
    image = tf.io.decode_jpeg((run / "export/serving/example.jpg").read_bytes())
    answer = signature(images=image[None])
    name, score = answer["classes"][0, 0].numpy().decode(), float(answer["scores"][0, 0])
    assert f"{name} {score:.1%}" in classified.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.py", "--dataset=digits", "--depth=21"], "6n+2"),
        (["export.py", "--run_dir=/no/such/run", "--debug"], "/no/such/run/config.json"),
    ],
)
def test_wrong_flags_end_with_code_2_and_one_error_and_with_debug_a_traceback(arguments, words):
    done = call(*arguments)
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert ("Traceback" in done.stderr) == ("--debug" in arguments)


@pytest.mark.parametrize(
    ("program", "name", "code"), [("train.py", "SIGINT", 130), ("export.py", "SIGTERM", 143)]
)
def test_a_signal_while_tensorflow_is_imported_ends_in_silence(tmp_path, program, name, code):
    (tmp_path / "tensorflow.py").write_text(
        f"import os, signal, time\nos.kill(os.getpid(), signal.{name})\ntime.sleep(60)\n"
    )
    done = call(program, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("begun", [False, True])
def test_an_export_that_is_killed_leaves_all_of_a_version_or_nothing(tmp_path, begun):
    run, out = tmp_path / "run", tmp_path / "exports" / "out"
    trained = call(
        "train.py", "--dataset=digits", "--depth=8", "--train_steps=9", f"--run_dir={run}"
    )
    assert trained.returncode == 0, trained.stderr
    # The gate is left open: nine steps teach little.
    export = ["export.py", f"--run_dir={run}", f"--output_dir={out}", "--tflite=int8"]
    export += ["--int8_loss_points=100", "--eval_images=40"]
    if begun:
        assert call(*export).returncode == 0
    before = files_of(out)
    random = np.random.default_rng(begun)
    for line in ("Exporting", "Converting", "Comparing", "Comparing"):
        for name in ("SIGKILL", "SIGTERM"):
            code, output = end_at(export, line, random.uniform(0, 2), name)
            assert code == {"SIGKILL": -9, "SIGTERM": 143}[name], output
            assert "Traceback" not in output
            assert files_of(out) == before
            assert name == "SIGKILL" or not list(out.parent.glob(".*"))
    done = call(*export)
    assert done.returncode == 0, done.stderr
    after = files_of(out)
    kept = {name for name in before if not name.startswith("report.")}
    assert all(after[name] == before[name] for name in kept)
    for kind in ("saved_model", "tflite", "reports"):
        assert sorted(path.name for path in (out / kind).iterdir()) == ["1", "2"][: 1 + begun]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def end_at(arguments, start_of_line, seconds, name):
    """Sends a program a signal so long after a line; its exit code, and what it has said."""
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(start_of_line):
                time.sleep(seconds)
                process.send_signal(signal.Signals[name])
                break
        lines += process.stdout
        return process.wait(TIMEOUT_SECONDS), "".join(lines)


def test_ctrl_c_saves_and_says_how_to_continue(tmp_path):
    run = tmp_path / "run"
    recipe = "--flagfile=configs/digits_resnet20.flags"
    arguments = ["train.py", recipe, f"--run_dir={run}", "--log_steps=1"]
    code, output = end_at(arguments, "step 3 ", 0, "SIGINT")
    assert code == 130, output
    assert "Traceback" not in output
    assert f"train.py --run_dir={run} --resume" in output
    assert list((run / "checkpoints").glob("step-*"))


@pytest.mark.slow
def test_a_global_channels_first_changes_no_number_of_a_run(tmp_path):
    numbers = []
    for name in ("channels_last", "channels_first"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keras.json").write_text(f'{{"image_data_format": "{name}"}}')
        run = tmp_path / name / "run"
        flags = ("--dataset=digits", "--depth=8", "--train_steps=2", "--deterministic")
        environment = {**os.environ, "KERAS_HOME": str(tmp_path / name)}
        done = call("train.py", *flags, f"--run_dir={run}", env=environment)
        assert done.returncode == 0, done.stderr
        saved = tf.train.load_checkpoint(str(run / "checkpoints/step-2/variables"))
        names = [name for name in saved.get_variable_to_dtype_map() if "model/" in name]
        numbers.append({name: saved.get_tensor(name) for name in names})
    assert len(numbers[0]) > 20
    for name, value in numbers[0].items():
        np.testing.assert_array_equal(numbers[1][name], value, err_msg=name)


@pytest.mark.slow
def test_a_run_outlives_the_folder_it_was_started_from_and_says_how_to_export_it(tmp_path):
    run, here = tmp_path / "run", tmp_path / "here"
    here.mkdir()
    flags = ["--dataset=digits", "--depth=8", "--train_steps=3", f"--run_dir={run}"]
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=here, **pipes) as process:
        here.rmdir()
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 0, output
    assert (run / "curves.png").exists() and "Could not write" not in output
    [line] = [line for line in output.splitlines() if line.startswith("  export: ")]
    python, program, flag = line.removeprefix("  export: ").split()
    assert pathlib.Path(shutil.which(python)).samefile(sys.executable)
    assert (program, flag) == (str(ROOT / "export.py"), f"--run_dir={run}")
