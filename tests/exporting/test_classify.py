"""Classifying image files with a SavedModel: `python -m keras_preact.exporting.classify`."""

import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_files import claiming, encode, flat
from tiny_nets import NAMES, export, images_of, make_info, make_resnet, probabilities

from keras_preact.exporting import classify

INFO = make_info()
IMAGES = images_of(INFO)
DAMAGED = "An image file must be whole and undamaged. Received: a file of "


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a model, and Keras' probabilities of IMAGES."""
    keras.utils.set_random_seed(0)
    model = make_resnet()
    folder = export(tmp_path_factory.mktemp("exported") / "1", model, INFO)
    return str(folder), probabilities(model, IMAGES, INFO)


@pytest.fixture
def files(tmp_path):
    """The paths of IMAGES."""
    paths = [tmp_path / f"{number}.png" for number in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        path.write_bytes(encode(image))
    return [str(path) for path in paths]


def test_image_files_are_classified_as_their_pixels_are(exported, files):
    folder, expected = exported
    answers = classify.classify(folder, files)
    assert len(answers) == len(files)
    for answer, row in zip(answers, expected, strict=True):
        order = np.argsort(-row)[:5]
        assert [name for name, _ in answer] == [NAMES[label] for label in order]
        np.testing.assert_allclose([score for _, score in answer], row[order], atol=1e-4)


def test_the_program_prints_a_line_for_each_file(exported, files, capsys):
    folder, expected = exported
    classify.main([f"--model={folder}", *files])
    lines = capsys.readouterr().out.splitlines()
    for file, line, row in zip(files, lines, expected, strict=True):
        best = row.argmax()
        assert line.startswith(f"{file}: {NAMES[best]} ")
        likeliest = line.removeprefix(f"{file}: ").split(", ")
        assert len(likeliest) == 5
        share = float(likeliest[0].removeprefix(f"{NAMES[best]} ").removesuffix("%")) / 100
        assert share == pytest.approx(row[best], abs=1e-3)


def test_files_may_be_of_any_size_and_kind(exported, tmp_path):
    paths = [tmp_path / "small.png", tmp_path / "large.jpg"]
    paths[0].write_bytes(flat(77, 9, 8))
    paths[1].write_bytes(flat(77, 300, 200, "JPEG"))
    small, large = classify.classify(exported[0], list(map(str, paths)))
    assert [name for name, _ in small] == [name for name, _ in large]
    np.testing.assert_allclose([s for _, s in small], [s for _, s in large], atol=1e-5)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (
            b"text",
            "image_bytes must be JPEG or PNG files. Received another kind: a file of ",
        ),
        (claiming(flat(1, 9, 8), 9999, 9999), "An image must have 1 to 5,000,000 pixels, and no "),
        (encode(IMAGES[0])[:-20], DAMAGED),
        (encode(IMAGES[0], "JPEG")[:-20], DAMAGED),
        (None, ""),
    ],
    ids=["text", "huge", "half a PNG", "half a JPEG", "missing"],
)
def test_what_is_no_image_is_named_with_the_reason_in_a_line(
    exported, files, tmp_path, contents, words
):
    path = tmp_path / "damaged.png"
    if contents is not None:
        path.write_bytes(contents)
    words = words or f"{path}; No such file or directory"
    with pytest.raises(ValueError) as refused:
        classify.classify(exported[0], [*files, str(path)])
    [line] = str(refused.value).splitlines()
    assert line.startswith(f"{path} is not a readable image file: {words}")
    assert "{{" not in line
    assert line.count("[") == line.count("]")


def test_a_folder_is_no_image(exported, tmp_path):
    with pytest.raises(ValueError, match="is not a readable image file"):
        classify.classify(exported[0], [str(tmp_path)])


def test_what_is_no_model_is_an_error_in_words(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        classify.classify(str(tmp_path), [])
    with pytest.raises(SystemExit) as stopped:
        classify.main([f"--model={tmp_path / 'missing'}", "image.png"])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"Error: {tmp_path / 'missing'} is not a model that export.py")


def test_nor_is_a_saved_model_of_another_make(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "another"))
    with pytest.raises(ValueError, match=r"another is not a model that export\.py wrote"):
        classify.classify(str(tmp_path / "another"), [])


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path):
    path.write_bytes(bytes(range(256)) * 4)


HARMS = {
    "variables cut off": lambda model: cut(next(model.glob("variables/*.data-*"))),
    "variables of zero bytes": lambda model: next(model.glob("variables/*.data-*")).write_bytes(
        b""
    ),
    "index cut off": lambda model: cut(model / "variables" / "variables.index"),
    "index overwritten": lambda model: overwrite(model / "variables" / "variables.index"),
    "no variables": lambda model: shutil.rmtree(model / "variables"),
    "graph cut off": lambda model: cut(model / "saved_model.pb"),
    "graph overwritten": lambda model: overwrite(model / "saved_model.pb"),
    "graph of zero bytes": lambda model: (model / "saved_model.pb").write_bytes(b""),
    "no graph": lambda model: (model / "saved_model.pb").unlink(),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_model_is_one_error(exported, files, tmp_path, capsys, harm):
    shutil.copytree(exported[0], tmp_path / "model")
    harm(tmp_path / "model")
    with pytest.raises(SystemExit) as stopped:
        classify.main([f"--model={tmp_path / 'model'}", *files])
    assert stopped.value.code == 2
    output, errors = capsys.readouterr()
    [line] = errors.splitlines()
    rule = "is not a model that export.py wrote, or is damaged: "
    assert output == "" and line.startswith(f"Error: {tmp_path / 'model'} {rule}")
    assert len(line) > len(f"Error: {tmp_path / 'model'} {rule}")


def test_a_file_is_no_model_and_neither_is_one_of_another_signature(tmp_path):
    (tmp_path / "file").write_text("no model")
    with pytest.raises(ValueError, match=r"file is not a model that export\.py wrote"):
        classify.classify(str(tmp_path / "file"), [])
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.string, name="text")
    module.f = tf.function(lambda text: {"length": tf.strings.length(text)}, [spec])
    signatures = {"serving_bytes": module.f}
    tf.saved_model.save(module, str(tmp_path / "another"), signatures=signatures)
    with pytest.raises(ValueError, match=r"another is not .* has other inputs or outputs"):
        classify.classify(str(tmp_path / "another"), [])


def test_a_path_at_which_tensorflow_finds_no_model_is_refused(exported, tmp_path):
    shutil.copytree(exported[0], tmp_path / "a[1]")
    with pytest.raises(ValueError, match=r"model must not hold \[ \], as TensorFlow takes"):
        classify.classify(str(tmp_path / "a[1]"), [])
    with pytest.raises(ValueError, match=r"model must be a path .*Mount it with mountpoint-s3"):
        classify.classify("s3://bucket/model", [])


@pytest.mark.parametrize(
    "name", ["pipe.png", "to zero.png", "none.png", "a\nb\x1b[2J.png", "s3://a/b"]
)
def test_what_cannot_be_read_is_one_error_and_not_waited_for(
    exported, tmp_path, capsys, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    os.symlink("/dev/zero", "to zero.png")
    with pytest.raises(SystemExit) as stopped:
        classify.main([f"--model={exported[0]}", name])
    assert stopped.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    shown = name.replace("\n", r"\n").replace("\x1b", r"\x1b")
    assert line.startswith(f"Error: {shown} is not a readable image file: ")


def test_a_name_of_any_bytes_is_read_and_shown(exported, files, tmp_path, capsys):
    path = tmp_path / os.fsdecode(b"caf\xe9[1]*.png")
    shutil.copy(files[0], path)
    classify.main([f"--model={exported[0]}", str(path), files[0]])
    first, second = capsys.readouterr().out.splitlines()
    assert first.partition(".png: ")[2] == second.partition(".png: ")[2]
    assert first.startswith(rf"{tmp_path}/caf\udce9[1]*.png: ")


def test_names_of_classes_do_not_steer_the_terminal(tmp_path, files, capsys):
    names = ("ant\x1b[2J", "$\\frac{1}$", "a\nb", *NAMES[3:])
    info = make_info(class_names=names)
    folder = export(tmp_path / "1", make_resnet(), info)
    classify.main([f"--model={folder}", *files])
    for line in capsys.readouterr().out.splitlines():
        assert line.isprintable() and line.count("%") == 5


PROGRAM = """
from keras_preact.exporting import classify
classify.classify = lambda model, paths: [[("ant" * 100, 0.5)]] * len(paths)
classify.main(["--model=any", *["image.png"] * 2000])
"""


@pytest.mark.parametrize(
    ("shell", "code", "words"),
    [
        ("| head -1", 0, ""),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("| true", 0, ""),
                (
                    ">/dev/full",
                    74,
                    "Error: the output cannot be written: No space left on device\n",
                ),
                (">&-", 0, ""),
            )
        ),
    ],
)
def test_an_output_that_breaks_is_no_traceback(shell, code, words):
    command = f'set -o pipefail; "$0" -c "$1" {shell}'
    root = pathlib.Path(classify.__file__).parent.parent.parent
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, PROGRAM],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code
    # TensorFlow's start-up notices come before it.
    assert done.stderr.endswith(words) and done.stderr.count("Error") == words.count("Error")
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
