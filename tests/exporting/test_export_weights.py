"""Exports of weights, with the preprocessing that makes a data set unnecessary afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_exports import (
    artifact,
    evaluation_images,
    export,
    load_data,
    newest_model,
    read_report,
    saved_model_probabilities,
)

import keras_preact
from keras_preact import ResNetV2
from keras_preact.exporting import ExportConfig, source
from keras_preact.layers import Preprocessing
from keras_preact.models import Network

RECORD = Preprocessing((8, 8, 1), (80.0,), (90.0,), class_names=tuple("abcdefghij"))


@pytest.fixture(scope="module")
def weights_export(digits_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "out"
    return export(digits_run.folder, output_dir=str(out), formats=("keras",), eval_images=None)


def test_a_run_becomes_a_keras_file_that_plain_keras_loads(digits_run, weights_export):
    model = keras.models.load_model(weights_export / "weights" / "1" / "model.keras")
    data = load_data(digits_run.folder)
    images, labels = evaluation_images(data)
    logits = model.predict(model.preprocessing.normalize(images), verbose=0)
    assert np.mean(logits.argmax(axis=1) == labels) == digits_run.evaluation.accuracy
    assert model.preprocessing == data.info.preprocessing
    expected = newest_model(digits_run.folder)
    for variable, other in zip(model.variables, expected.variables, strict=True):
        np.testing.assert_array_equal(variable, other)


def test_only_what_is_wanted_is_written_and_compared(weights_export):
    names = {path.name for path in weights_export.iterdir()}
    assert names == {"report.json", "report.md", "report.png", "reports", "weights"}
    entry = artifact(weights_export, "weights/keras")
    assert (entry["max_difference"], entry["images"]) == (0, 360)
    assert entry["tolerance"]["max_difference"]["flag"] == "float32_tolerance"
    report = (weights_export / "report.md").read_text()
    assert "Rewritten" not in report and "--init_from=" in report


def test_safetensors_come_back_as_the_same_network(digits_run, tmp_path):
    options = {"formats": ("safetensors",), "eval_images": 20}
    out = export(digits_run.folder, output_dir=str(tmp_path / "out"), **options)
    network = keras_preact.convert(str(out / "weights" / "1" / "model.safetensors"))
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    expected = newest_model(digits_run.folder)
    np.testing.assert_allclose(network(images), expected(images), atol=1e-5)
    assert network.preprocessing == expected.preprocessing
    assert "keras_preact.convert(PATH)" in (out / "report.md").read_text()


def test_the_file_is_exported_without_its_data(weights_export, tmp_path):
    path = weights_export / "weights" / "1" / "model.keras"
    options = {"dataset": None, "eval_images": 16, "tflite": ("int8",), "calibration_images": 20}
    out = export("", model=str(path), output_dir=str(tmp_path / "out"), **options)
    model = keras.models.load_model(path)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    expected = tf.nn.softmax(model(model.preprocessing.normalize(images)))
    np.testing.assert_allclose(saved_model_probabilities(out, images=images), expected, atol=1e-5)
    report = read_report(out)
    assert not report["is_labelled"] and report["data"]["class_names"] == list("0123456789")
    assert artifact(out, "keras")["accuracy"] == 1
    assert "parts of two photographs" in (out / "report.md").read_text()


def saved(tmp_path, record, **options):
    model = ResNetV2(8, input_shape=(8, 8, 1), classes=10)
    model.preprocessing = record
    model.save(tmp_path / "net.keras")
    return ExportConfig(model=str(tmp_path / "net.keras"), **options)


def test_the_temperature_is_in_all_files_and_in_those_made_from_them(digits_run, tmp_path):
    options = {"formats": ("saved_model", "keras"), "eval_images": 20}
    first = export(
        digits_run.folder, output_dir=str(tmp_path / "first"), temperature=0.5, **options
    )
    path = first / "weights" / "1" / "model.keras"
    again = {**options, "dataset": None, "model": str(path)}
    second = export("", output_dir=str(tmp_path / "second"), **again)
    images, _ = evaluation_images(load_data(digits_run.folder))
    model = newest_model(digits_run.folder)
    logits = model.predict(model.preprocessing.normalize(images[:20]), verbose=0)
    expected = tf.nn.softmax(2 * logits)
    for folder in (first, second):
        got = saved_model_probabilities(folder, images=images[:20])
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert artifact(folder, "saved_model")["max_difference"] < 1e-4
    assert keras.models.load_model(path).preprocessing.temperature == 0.5


def test_a_file_of_a_network_with_several_labels_is_exported_with_sigmoids(tmp_path):
    record = RECORD.replace(multi_label=True)
    model = saved(tmp_path, record).model
    out = export("", output_dir=str(tmp_path / "out"), model=model)
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1)).astype(np.uint8)
    logits = keras.models.load_model(model).predict(record.normalize(images), verbose=0)
    got = saved_model_probabilities(out, images=images)
    np.testing.assert_allclose(got, 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert artifact(out, "saved_model")["agreement"] == 1


def test_a_file_without_preprocessing_needs_its_data_set(tmp_path):
    with pytest.raises(ValueError, match=r"model needs dataset, .* unless the file says"):
        source.read(saved(tmp_path, None))


def test_its_own_normalization_is_used_on_any_data(tmp_path):
    record = RECORD.replace(class_names=())
    read = source.read(saved(tmp_path, record, dataset="digits"))
    assert (read.data.info.mean, read.data.info.std) == ((80.0,), (90.0,))
    assert isinstance(read.model, Network)
    assert read.model.preprocessing.class_names == tuple("0123456789")


def test_data_of_other_classes_are_refused(tmp_path):
    words = r"classes of the data must be those of the model, a, b, .* digits, of 0, 1"
    with pytest.raises(ValueError, match=words):
        source.read(saved(tmp_path, RECORD, dataset="digits"))


def test_a_record_must_name_all_classes(tmp_path):
    with pytest.raises(ValueError, match=r"name its 10 classes or none. Received: 2 names"):
        source.read(saved(tmp_path, RECORD.replace(class_names=("a", "b"))))
