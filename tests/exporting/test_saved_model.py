import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_preact
from keras_preact.data import DatasetInfo
from keras_preact.exporting import saved_model
from keras_preact.exporting.classify import classify

INFO = DatasetInfo(
    name="test",
    class_names=("ant", "bee", "cat", "dog", "eel", "fox", "gnu"),
    image_shape=(9, 8, 3),
    train_count=1,
    eval_count=1,
    mean=(100.0, 110.0, 120.0),
    std=(50.0, 60.0, 70.0),
    margin=1.0,
)


def make_model(**options):
    model = keras_preact.ResNetV2(8, input_shape=INFO.image_shape, classes=7, **options)
    rng = np.random.default_rng(0)
    # New networks have trivial statistics; trained ones do not.
    for variable in model.non_trainable_variables:
        if variable.name == "moving_mean":
            variable.assign(rng.uniform(-0.3, 0.3, variable.shape))
        elif variable.name == "moving_variance":
            variable.assign(rng.uniform(0.1, 0.3, variable.shape))
    return model


def make_images(count=3):
    return np.random.default_rng(1).integers(0, 256, (count, 9, 8, 3), np.uint8)


def expected_probabilities(model, images):
    """Written out in NumPy around Keras' own predict."""
    normalized = (images.astype(np.float64) - INFO.mean) / INFO.std
    logits = model.predict(normalized.astype(np.float32), verbose=0).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert np.ptp(probabilities) > 0.1, "a network that says nothing proves nothing"
    return probabilities


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    keras.utils.set_random_seed(0)
    model, images = make_model(), make_images()
    version, _ = saved_model.export(model, INFO, images, tmp_path_factory.mktemp("saved_model"))
    return version, images, expected_probabilities(model, images)


@pytest.mark.parametrize(
    ("signature", "dtype"), [("serving_default", np.uint8), ("serving_float32", np.float32)]
)
def test_a_plain_session_computes_what_keras_does(exported, signature, dtype):
    # The way TF Serving loads a model: no Keras, no Python code of ours.
    version, images, expected = exported
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(version))
        definition = loaded.signature_def[signature]
        assert list(definition.inputs) == ["images"]
        assert definition.inputs["images"].dtype == tf.as_dtype(dtype).as_datatype_enum
        sizes = [dim.size for dim in definition.inputs["images"].tensor_shape.dim]
        assert sizes == [-1, 9, 8, 3]
        names = {name: tensor.name for name, tensor in definition.outputs.items()}
        got = session.run(names, {definition.inputs["images"].name: images.astype(dtype)})
    np.testing.assert_allclose(got["probabilities"], expected, atol=1e-5)
    order = np.argsort(-expected, axis=1)[:, :5]
    np.testing.assert_array_equal(got["classes"].astype(str), np.array(INFO.class_names)[order])
    np.testing.assert_allclose(got["scores"], np.take_along_axis(expected, order, 1), atol=1e-5)


def test_image_files_are_classified_as_their_pixels_are(exported, tmp_path):
    version, images, expected = exported
    path = tmp_path / "image.png"
    path.write_bytes(tf.io.encode_png(images[0]).numpy())
    [answer] = classify(str(version), [str(path)])
    assert len(answer) == 5
    for name, score in answer:
        assert score == pytest.approx(expected[0][INFO.class_names.index(name)], abs=1e-5)


def test_files_of_any_size_and_kind_are_brought_to_size(exported):
    version, _, _ = exported
    predict = tf.saved_model.load(str(version)).signatures["serving_bytes"]
    flat = [np.full(shape, 77, np.uint8) for shape in ((9, 8, 3), (40, 23, 3), (5, 90, 3))]
    files = [tf.io.encode_png(flat[0]), tf.io.encode_jpeg(flat[1], quality=100)]
    probabilities = predict(image_bytes=tf.stack([*files, tf.io.encode_png(flat[2])]))
    for row in probabilities["probabilities"][1:]:
        np.testing.assert_allclose(row, probabilities["probabilities"][0], atol=1e-3)


def test_what_is_no_image_or_no_model_is_an_error_in_words(exported, tmp_path):
    (tmp_path / "text.png").write_text("not an image")
    for path in (tmp_path / "text.png", tmp_path / "missing.png"):
        with pytest.raises(ValueError, match=f"{path.name} is not a readable image file"):
            classify(str(exported[0]), [str(path)])
    with pytest.raises(ValueError, match=r"not a model that export\.py wrote"):
        classify(str(tmp_path), [])


def test_a_version_is_never_touched_but_followed_by_the_next(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "notes").mkdir()
    version, difference = saved_model.export(make_model(), INFO, make_images(), tmp_path)
    assert version.name == "8"
    assert difference <= saved_model.TOLERANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["7", "8", "notes"]
    assert list((tmp_path / "7").iterdir()) == []


def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch):
    write = saved_model._write

    def write_another(model, info, folder):
        write(make_model(unit="original"), info, folder)

    monkeypatch.setattr(saved_model, "_write", write_another)
    with pytest.raises(saved_model.ParityError, match="differs from the Keras model"):
        saved_model.export(make_model(), INFO, make_images(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shortcut", ["exclusive_gating", "convolution", "dropout"])
def test_other_shortcuts_export_too(tmp_path, shortcut):
    model = make_model(unit="original", shortcut=shortcut)
    _, difference = saved_model.export(model, INFO, make_images(), tmp_path)
    assert difference <= saved_model.TOLERANCE
