"""The code of report.md and of docs/export.md that uses a TFLite file without this package."""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf
from small_exports import (
    evaluation_images,
    export,
    keras_probabilities,
    lite_probabilities,
    load_data,
)

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module")
def exported(photographs_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("by_hand") / "runs" / "digits_resnet20" / "export"
    return export(photographs_run.folder, output_dir=str(out), tflite=("float32",))


@pytest.fixture(scope="module")
def photographs(photographs_run):
    """Paths of the evaluation images, and what the Keras model says of each in evaluation."""
    data = load_data(photographs_run.folder)
    paths = [data.eval_name(number) for number in range(data.info.eval_count)]
    images, _ = evaluation_images(data)
    return paths, keras_probabilities(photographs_run.folder, images)


@pytest.fixture(params=["report.md", "docs/export.md"])
def code(request, exported, monkeypatch):
    """Code in which PHOTO stands for the path of a photograph."""
    in_report = request.param == "report.md"
    monkeypatch.chdir(exported if in_report else exported.parents[2])
    text = (exported / "report.md" if in_report else PAGE).read_text()
    [block] = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if "ai_edge_litert" in block
    ]
    name = "serving/example.jpg" if in_report else "IMAGE"
    assert block.count(name) == 1
    assert "keras_preact" not in block
    return block.replace(name, "PHOTO")


def squeezed(path):
    """A photograph of the size of the net's images, with another aspect ratio."""
    image = tf.io.decode_jpeg(pathlib.Path(path).read_bytes())
    return np.uint8(tf.image.resize(image, (32, 32), antialias=True))


def test_the_code_answers_as_the_keras_model_in_evaluation(code, exported, photographs, capsys):
    paths, expected = photographs
    got = []
    for path in paths:
        namespace = {}
        exec(code.replace("PHOTO", path), namespace)
        got.append(namespace["scores"])
    difference = np.abs(got - expected).max(axis=1)
    names = ["blue", "green", "red"]
    assert capsys.readouterr().out.split() == [names[row.argmax()] for row in np.array(got)]
    file = exported / "tflite" / "1" / "float32.tflite"
    of_squeezed = np.abs(lite_probabilities(file, map(squeezed, paths)) - expected).max(axis=1)
    assert difference.max() < 0.02
    assert of_squeezed.max() > 5 * difference.max()
