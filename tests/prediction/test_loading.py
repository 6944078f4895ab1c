"""Models that are refused, and why; preprocessing that is given."""

import dataclasses
import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_preact
from keras_preact import prediction
from keras_preact.exporting.formats import preprocessing_record
from keras_preact.layers import Preprocessing
from keras_preact.support.errors import RunError

PLAIN = Preprocessing((8, 8, 3), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


def net(*layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), keras.layers.GlobalAveragePooling2D(), *layers])


def test_preprocessing_may_be_given_where_a_model_carries_none(images, tmp_path):
    model = net(keras.layers.Dense(4, activation="softmax"))
    model.save(tmp_path / "plain.keras")
    with pytest.raises(ValueError, match=r"carries no preprocessing.*--preprocessing="):
        prediction.load(tmp_path / "plain.keras")
    (tmp_path / "preprocessing.json").write_bytes(preprocessing_record.to_json(PLAIN))
    read = preprocessing_record.read(tmp_path / "preprocessing.json")
    assert read == PLAIN
    classifier = prediction.load(tmp_path / "plain.keras", preprocessing=read)
    [first, *_] = prediction.predict(classifier, images)
    assert sorted(first.classes) == ["0", "1", "2", "3"]
    assert sum(first.scores) == pytest.approx(1, abs=1e-5)


def test_preprocessing_is_refused_where_a_model_has_its_own(models):
    with pytest.raises(ValueError, match="carries its own"):
        prediction.load(models["keras"], preprocessing=PLAIN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}", "image_shape must be given"),
        (b"\xff", "it must be UTF-8"),
        (preprocessing_record.to_json(PLAIN).replace(b"4.0", b"-4.0"), "std must have a finite"),
        (preprocessing_record.to_json(PLAIN).replace(b"4.0", b"NaN"), "std"),
        (preprocessing_record.to_json(PLAIN).replace(b'"mean"', b'"mien"'), "no other fields"),
    ],
    ids=["empty", "no text", "negative", "nan", "unknown"],
)
def test_a_record_of_preprocessing_that_is_damaged_is_named(tmp_path, models, text, words):
    (tmp_path / "record.json").write_bytes(text)
    with pytest.raises(ValueError, match=f"record.json is not the preprocessing.*{words}"):
        preprocessing_record.read(tmp_path / "record.json")
    shutil.copytree(models["saved_model"], tmp_path / "1")
    (tmp_path / "1" / preprocessing_record.IN_SAVED_MODEL).write_bytes(text)
    with pytest.raises(ValueError, match=words):
        prediction.load(tmp_path / "1")


def test_exports_carry_the_preprocessing_of_their_run(models):
    expected = prediction.load(models["run"])
    for kind in ("keras", "saved_model", "float32", "int8"):
        found = prediction.load(models[kind])
        assert found.preprocessing == expected.preprocessing
        assert found.class_names == ("ant", "bee", "gnu")
        assert found.digest() == prediction.load(models[kind]).digest()
    digests = {kind: prediction.load(path).digest() for kind, path in models.items()}
    assert len(set(digests.values())) == len(digests)


def test_an_export_of_before_has_no_record_and_may_be_given_one(models, tmp_path):
    shutil.copytree(models["saved_model"], tmp_path / "1")
    record = tmp_path / "1" / preprocessing_record.IN_SAVED_MODEL
    given = preprocessing_record.read(record)
    record.unlink()
    with pytest.raises(ValueError, match="Export the model again"):
        prediction.load(tmp_path / "1")
    assert prediction.load(tmp_path / "1", preprocessing=given).preprocessing == given
    lite = models["float32"].read_bytes()
    (tmp_path / "old.tflite").write_bytes(lite[: lite.rindex(b"PK\x03\x04")])
    with pytest.raises(ValueError, match="Export the model again"):
        prediction.load(tmp_path / "old.tflite")


@pytest.mark.parametrize(
    ("model", "preprocessing", "words"),
    [
        (lambda: net(keras.layers.Dense(4, activation="sigmoid")), PLAIN, "logits, or in a soft"),
        (lambda: keras.Sequential([keras.Input((8, 8, 3))]), PLAIN, "number for each class"),
        (lambda: keras.Sequential([keras.layers.Dense(4)]), PLAIN, "number for each class"),
        (lambda: net(keras.layers.Dense(4), shape=(9, 8, 3)), PLAIN, "images of the model's size"),
        (
            lambda: net(keras.layers.Dense(4)),
            PLAIN.replace(class_names=("a", "b")),
            "2 names for 4 classes",
        ),
        (
            lambda: net(keras.layers.Dense(4), shape=(8, 8, 4)),
            PLAIN.with_channels(4),
            "1 or 3 channels",
        ),
    ],
    ids=["sigmoid", "no classes", "not built", "another size", "names", "channels"],
)
def test_what_is_no_classifier_of_such_images_is_refused(model, preprocessing, words):
    with pytest.raises(ValueError, match=words):
        prediction.load(model(), preprocessing=preprocessing)


def test_a_keras_file_with_code_is_refused_and_not_executed(tmp_path):
    trace = tmp_path / "executed"
    code = f"(lambda x: (__import__('pathlib').Path({str(trace)!r}).touch(), x)[1])"
    model = net(keras.layers.Lambda(eval(code)), keras.layers.Dense(4))
    assert trace.exists()
    model.save(tmp_path / "net.keras")
    trace.unlink()
    with pytest.raises(ValueError, match=r"model cannot be read.*net\.keras.*no code"):
        prediction.load(tmp_path / "net.keras", preprocessing=PLAIN)
    assert not trace.exists()


def test_weights_that_give_no_number_are_an_error_that_names_the_file(images):
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), classes=3)
    model.preprocessing = PLAIN
    model.get_layer("logits").bias.assign([np.nan, 0, 0])
    with pytest.raises(RunError, match=rf"not finite for {images[0]}: its weights are damaged"):
        prediction.predict(model, images)


def test_a_path_without_a_model_says_what_a_model_is(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"")
    for name, words in (
        ("none", "which is not there"),
        ("", "a folder without config.json and saved_model.pb"),
        ("weights.safetensors", "weights of other formats go through .* convert"),
    ):
        with pytest.raises(ValueError, match=f"model must be the folder of a run.*{words}"):
            prediction.load(tmp_path / name)
    for name in ("none.keras", "none.tflite"):
        with pytest.raises(ValueError, match="model must be a file that is there"):
            prediction.load(tmp_path / name)
    for name in ("text.keras", "text.tflite"):
        (tmp_path / name).write_text("no model")
        with pytest.raises(ValueError, match=f"{name}"):
            prediction.load(tmp_path / name)


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
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_export_is_one_error(models, tmp_path, harm):
    shutil.copytree(models["saved_model"], tmp_path / "model")
    harm(tmp_path / "model")
    with pytest.raises(ValueError) as refused:
        prediction.load(tmp_path / "model")
    [line] = str(refused.value).splitlines()
    rule = f"{tmp_path / 'model'} is not a model that export.py wrote, or is damaged: "
    assert line.startswith(rule) and len(line) > len(rule)


def test_a_saved_model_of_another_make_is_refused(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None], tf.string, name="text")
    module.f = tf.function(lambda text: {"length": tf.strings.length(text)}, [spec])
    for name, signatures in (("none", None), ("another", {"serving_default": module.f})):
        tf.saved_model.save(module, str(tmp_path / name), signatures=signatures)
        with pytest.raises(ValueError, match=r"is not a model that export\.py wrote"):
            prediction.load(tmp_path / name, preprocessing=PLAIN)


def test_a_path_at_which_tensorflow_finds_no_model_is_refused(models, tmp_path):
    shutil.copytree(models["saved_model"], tmp_path / "a[1]")
    with pytest.raises(ValueError, match=r"model must not hold \[ \], as TensorFlow takes"):
        prediction.load(tmp_path / "a[1]")
    with pytest.raises(ValueError, match=r"model must be a path .*Mount it with mountpoint-s3"):
        prediction.load("s3://bucket/model")
    for kind in ("keras", "float32"):
        path = tmp_path / "a[1]" / os.path.basename(models[kind])
        shutil.copy(models[kind], path)
        assert prediction.load(path).class_names == ("ant", "bee", "gnu")


def test_the_model_of_a_run_is_known_by_its_weights(run_dir):
    model = keras_preact.load_run(str(run_dir))
    assert prediction.load(model).digest() == prediction.load(run_dir).digest()
    bias = model.get_layer("logits").bias
    bias.assign(bias + 1)
    changed = prediction.load(model).digest()
    assert changed != prediction.load(run_dir).digest()
    other = dataclasses.replace(model.preprocessing, resize_ratio=1.0)
    model.preprocessing = other
    assert prediction.load(model).digest() != changed
