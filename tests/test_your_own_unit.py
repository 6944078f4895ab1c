"""The units of docs/your_own_unit.md are trained, analysed and exported as the page says."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from pages import blocks, write_files

from keras_preact import analysis, data
from keras_preact.exporting import ExportConfig
from keras_preact.exporting import run as export
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.run import run as analyse
from keras_preact.training import TrainConfig, load_run, run

PAGE = "docs/your_own_unit.md"
EXAMPLES = {
    "squeeze": {"unit": "squeeze.py:SqueezeUnit"},
    "resnext": {"unit": "resnext.py:ResNeXtUnit"},
    "scale": {
        "shortcut": "scale.py:LearnedScale",
        "shortcut_arguments": "initial_value=0.9",
        "unit": "original",
    },
    "order": {"unit": "orders.py:pyramid"},
}


def test_the_examples_are_short():
    lengths = {block.file: len(block.code.splitlines()) for block in blocks(PAGE) if block.file}
    assert len(lengths) == 4 and max(lengths.values()) < 30


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_trained_analysed_and_exported(name, tmp_path, monkeypatch):
    write_files(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    digits = {"dataset": "digits", "global_batch_size": 64, "train_steps": 8, "warmup_steps": 2}
    run(TrainConfig(depth=8, run_dir="run", learning_rate=0.02, **digits, **EXAMPLES[name]))
    for path in tmp_path.glob("*.py"):
        path.unlink()

    network = load_run("run")
    images, labels = next(iter(data.load("digits").train(64, seed=1)))
    inputs = network.preprocessing.normalize(images)
    backward = analysis.backward(network, inputs, labels)
    assert np.all(backward.gradient_norm > 0) and len(backward.gradient_norm) == 3
    analyse(AnalysisConfig(run_dir="run", images=16))
    assert (tmp_path / "run/analysis/propagation/index.html").exists()

    export(ExportConfig(run_dir="run", tflite=("float32",), eval_images=40))
    expected = keras.ops.softmax(network(inputs)).numpy()
    served = tf.saved_model.load(str(next((tmp_path / "run/export/saved_model").iterdir())))
    found = served.signatures["serving_default"](images=tf.cast(images, tf.uint8))
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    [file] = (tmp_path / "run/export/tflite").rglob("float32.tflite")
    interpreter = Interpreter(str(file))
    [given], [answer] = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], images.numpy().astype(given["dtype"]))
    interpreter.invoke()
    np.testing.assert_allclose(interpreter.get_tensor(answer["index"]), expected, atol=1e-4)
