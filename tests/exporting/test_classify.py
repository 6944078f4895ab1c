"""Classifying image files with a SavedModel: `python -m keras_preact.exporting.classify`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_files import claiming, encode, flat
from tiny_nets import NAMES, export, images_of, make_info, make_resnet, probabilities

from keras_preact.exporting import classify

INFO = make_info()
IMAGES = images_of(INFO)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The folder of a model, and what Keras says of IMAGES."""
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
        (b"text", "image_bytes must be JPEG or PNG files. Received another kind: image 0 of the "),
        (claiming(flat(1, 9, 8), 9999, 9999), "An image must have 1 to 5,000,000 pixels, and no "),
        (encode(IMAGES[0])[:-20], "Invalid PNG data, size "),
        (encode(IMAGES[0], "JPEG")[:-20], "jpeg::Uncompress failed. Invalid JPEG data"),
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
