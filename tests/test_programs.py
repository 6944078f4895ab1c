"""train.py and export.py as a user starts them."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

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

    exported = call("export.py", f"--run_dir={run}")
    assert exported.returncode == 0, exported.stderr
    *_, command = exported.stdout.strip().splitlines()
    python, *arguments = command.split()
    assert pathlib.Path(shutil.which(python)).samefile(sys.executable)
    classified = call(*arguments)
    assert classified.returncode == 0, classified.stderr
    signature = tf.saved_model.load(str(run / "export/saved_model/1")).signatures["serving_default"]
    image = tf.io.decode_png((run / "export/example.png").read_bytes())
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


def test_ctrl_c_saves_and_says_how_to_continue(tmp_path):
    run = tmp_path / "run"
    recipe = "--flagfile=configs/digits_resnet20.flags"
    with subprocess.Popen(
        [sys.executable, "train.py", recipe, f"--run_dir={run}", "--log_steps=1"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("step 3 "):
                process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT_SECONDS)
    output = "".join(lines)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert f"train.py --run_dir={run} --resume" in output
    assert list((run / "checkpoints").glob("step-*"))
