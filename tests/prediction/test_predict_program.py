"""`keras-preact predict` as a user starts it."""

import signal
import subprocess
import sys
import time

import pytest

PREDICT = ("-m", "keras_preact", "predict")


def test_a_run_predicts_a_folder_and_the_exit_code_tells_of_unreadable_files(
    server, run_dir, photographs, tmp_path
):
    flags = (f"--model={run_dir}", f"--source={photographs / 'val'}")
    output = f"--output={tmp_path / 'x.csv'}"
    code, out, err = server.call(*PREDICT, *flags, output, f"--contact_sheet={tmp_path / 'x.png'}")
    assert (code, err) == (0, "")
    assert "12 files, 0 unreadable" in out and (tmp_path / "x.png").exists()
    assert (tmp_path / "x.csv").read_text().count("\n") == 13
    (tmp_path / "text.jpg").write_text("text")
    image = photographs / "val" / "ant" / "0.jpeg"
    code, out, err = server.call(*PREDICT, flags[0], image, tmp_path / "text.jpg", image)
    assert code == 3
    assert err == "Error: 1 of 3 files could not be read as images.\n"
    first, second, third = out.splitlines()
    assert first == third and second.startswith(f"{tmp_path / 'text.jpg'}: unreadable: ")


@pytest.mark.parametrize(
    ("stdout", "code", "words"),
    [
        ("broken", 0, ""),
        ("/dev/full", 74, "Error: the output cannot be written: No space left on device\n"),
        ("closed", 0, ""),
    ],
)
def test_an_output_that_breaks_is_no_traceback(server, models, photographs, stdout, code, words):
    images = sorted((photographs / "val").rglob("*.*"))
    called = server.call(*PREDICT, f"--model={models['saved_model']}", *images, stdout=stdout)
    assert (called[0], called[2]) == (code, words)


def test_wrong_input_ends_with_code_2_and_one_line(server, models, photographs, tmp_path):
    model, source = f"--model={models['keras']}", f"--source={photographs}"
    for flags, words in (
        ([source], "model must be given"),
        ([model], "Either source must be given"),
        ([model, "--source=/none"], "source must be an image file"),
        ([f"--model={tmp_path}", source], "model must be the folder of a run"),
        ([model, source, "--output=/none/x.csv"], "in a folder that exists"),
        ([model, source, "--preprocessing=/none"], "is not the preprocessing of a model"),
    ):
        code, out, err = server.call(*PREDICT, *flags)
        assert (code, out) == (2, "")
        assert err.startswith("Error: ") and words in err and err.count("\n") == 1


@pytest.mark.slow
def test_killed_and_interrupted_it_continues_to_the_same_bytes(models, photographs, tmp_path):
    names = sorted(map(str, (photographs / "val").rglob("*.*"))) * 400
    (tmp_path / "list.txt").write_text("\n".join(names))
    flags = [f"--model={models['keras']}", f"--source={tmp_path / 'list.txt'}", "--batch_size=8"]
    outputs = [tmp_path / "whole.csv", tmp_path / "cut.csv"]

    def begin(output):
        command = [sys.executable, *PREDICT, *flags, f"--output={output}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, **pipes)

    whole = begin(outputs[0])
    assert whole.wait(120) == 0, whole.stderr.read()
    sizes = [0]
    for number, code in (("SIGKILL", -9), ("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)):
        process = begin(outputs[1])
        while not outputs[1].exists() or outputs[1].stat().st_size < sizes[-1] + 3000:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.Signals[number])
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err
        sizes.append(outputs[1].stat().st_size)
        if number != "SIGKILL":
            assert "the same command continues after them" in err
            assert outputs[0].read_bytes().startswith(outputs[1].read_bytes())
            assert outputs[1].read_bytes().endswith(b"\n")
    last = begin(outputs[1])
    assert last.wait(120) == 0, last.stderr.read()
    assert outputs[1].read_bytes() == outputs[0].read_bytes()
