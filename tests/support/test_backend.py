"""Another backend than TensorFlow, and a keras.json that Keras cannot read, are refused."""

import importlib
import os
import pathlib
import subprocess
import sys

import keras
import pytest

import keras_preact

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULE = "keras_preact needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow before Keras"


def call(*arguments, backend="", keras_home=None):
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT)}
    environment |= {"KERAS_HOME": str(keras_home)} if keras_home else {}
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_backend_that_is_installed_is_refused_in_words(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(ImportError, match=f"{RULE} is imported. Received: KERAS_BACKEND=jax"):
        importlib.reload(keras_preact)


@pytest.mark.parametrize("backend", ["torch", "jax", "numpy", "nonsense"])
def test_a_backend_that_keras_itself_fails_to_import_is_refused_in_the_same_words(backend):
    # Also where it is installed.
    done = call("-c", "import keras_preact", backend=backend)
    last_line = done.stderr.strip().splitlines()[-1]
    assert last_line == f"ImportError: {RULE} is imported. Received: KERAS_BACKEND={backend}"
    assert done.returncode == 1


@pytest.mark.parametrize(
    "program",
    [
        [ROOT / "train.py", "--dataset=digits", "--depth=8"],
        [ROOT / "export.py", "--help"],
        ["-m", "keras_preact.analysis", "--depth=8"],
        ["-mkeras_preact.benchmark"],
        ["-W", "error", "-m", "keras_preact", "predict", "--model=net.tflite", "image.jpg"],
    ],
    ids=lambda words: " ".join(map(str, words)),
)
def test_programs_end_with_code_2_and_one_line(program):
    done = call(*program, backend="jax")
    assert done.stderr == f"Error: {RULE} is imported. Received: KERAS_BACKEND=jax\n"
    assert (done.returncode, done.stdout) == (2, "")


def test_with_debug_a_program_shows_a_traceback():
    done = call(ROOT / "train.py", "--debug", backend="nonsense")
    assert "Traceback" in done.stderr and RULE in done.stderr


def test_a_program_of_somebody_else_gets_the_error(tmp_path):
    (tmp_path / "theirs.py").write_text(
        "try:\n    import keras_preact\nexcept ImportError as error:\n    print(error)\n"
    )
    done = call(tmp_path / "theirs.py", "train.py", "-m", "keras_preact.analysis", backend="jax")
    assert (done.returncode, done.stdout) == (
        0,
        f"{RULE} is imported. Received: KERAS_BACKEND=jax\n",
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"backend": "torch"}', [RULE, "\"backend\": 'torch', in HOME/keras.json"]),
        ('{"backend": null}', [RULE, '"backend": None, in HOME/keras.json']),
        ("[]", ["mend or delete HOME/keras.json", "'list'"]),
        ('{"epsilon": 1}', ["mend or delete HOME/keras.json", "epsilon=1"]),
        ("[" * 100_000, ["mend or delete HOME/keras.json", "recursion"]),
    ],
    ids=["torch", "null", "list", "epsilon", "deep"],
)
def test_a_keras_json_that_is_wrong_is_named(tmp_path, text, words):
    (tmp_path / "keras.json").write_text(text)
    done = call(ROOT / "train.py", "--dataset=digits", keras_home=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    for word in words:
        assert word.replace("HOME", str(tmp_path)) in line
