"""One small run on digits, files made from its network, and one report about it."""

import keras
import pytest
from shared_between_workers import shared

from keras_preact import load_run
from keras_preact.evaluation import evaluate
from keras_preact.exporting.formats import saved_model, tflite
from keras_preact.exporting.graph import network, rewriting
from keras_preact.training import TrainConfig, run
from keras_preact.training.run_folder import RunFolder


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Paths by kind: run, keras, saved_model, tflite."""
    return shared(tmp_path_factory, "evaluated_digits", _make)


def _make(folder):
    path = folder / "run"
    options = {"dataset": "digits", "depth": 8, "train_steps": 60, "eval_epochs": 100}
    schedule = {"global_batch_size": 64, "warmup_steps": 1, "precision": "float32"}
    run(TrainConfig(run_dir=str(path), **options, **schedule))
    keras.config.set_dtype_policy("float32")
    model, (_, info) = load_run(str(path)), RunFolder(path).read()
    model.save(folder / "net.keras")
    graph = rewriting.rewrite(network.trace(model, info.image_shape))[-1].graph
    saved_model.write(graph, info.preprocessing, folder / "1")
    tflite.write(graph, info.preprocessing, folder / "lite", "net", ("float32",))
    kinds = {"run": path, "keras": folder / "net.keras", "saved_model": folder / "1"}
    return kinds | {"tflite": folder / "lite" / "float32.tflite"}


@pytest.fixture(scope="session")
def report(digits, tmp_path_factory):
    """The folder of a report that compares two models."""

    def make(folder):
        output = folder / "report"
        options = {"resamples": 100, "shown_images": 4, "probabilities": True}
        evaluate(digits["run"], compare=str(digits["tflite"]), output=str(output), **options)
        return output

    return shared(tmp_path_factory, "evaluation_report", make)
