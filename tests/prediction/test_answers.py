"""Answers are those of evaluation, for models of every kind; a bad file has its reason."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from fake_classifier import NAMES, fake
from image_encoding import encode, smooth_image
from PIL import Image

import keras_preact
from keras_preact import load_run, prediction
from keras_preact.data import augmentation, limits
from keras_preact.data.orientation import orientation
from keras_preact.exporting.formats import saved_model, tflite
from keras_preact.exporting.graph import network, rewriting
from keras_preact.prediction import answers, sources
from keras_preact.training.run import restore_data
from keras_preact.training.run_folder import RunFolder


def softmax(logits):
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def by_class(found, names=("ant", "bee", "gnu")):
    """The scores of predictions, (files, classes), by label."""
    return np.array(
        [[dict(zip(p.classes, p.scores, strict=True))[name] for name in names] for p in found]
    )


@pytest.fixture(scope="module")
def evaluated(run_dir):
    """Paths of the evaluation images, and probabilities by Keras' predict and NumPy."""
    data = restore_data(RunFolder(run_dir))
    [(images, _, weights)] = data.eval(data.info.eval_count).as_numpy_iterator()
    assert weights.all()
    normalized = ((images - np.float64(data.info.mean)) / data.info.std).astype(np.float32)
    paths = [data.eval_name(index) for index in range(len(images))]
    return paths, softmax(load_run(str(run_dir)).predict(normalized, verbose=0))


@pytest.mark.parametrize("kind", ["run", "keras", "saved_model", "float32", "int8"])
def test_the_answers_are_those_of_evaluation_image_by_image(models, evaluated, kind):
    paths, expected = evaluated
    found = keras_preact.predict(models[kind], paths, batch_size=5)
    assert [each.file for each in found] == paths
    assert all(each.error is None and len(each.classes) == 3 for each in found)
    np.testing.assert_allclose(by_class(found), expected, atol=0.03 if kind == "int8" else 1e-5)
    for each in found:
        assert list(each.scores) == sorted(each.scores, reverse=True)


def test_pillow_decodes_nearly_the_same(run_dir, evaluated):
    paths, _ = evaluated
    info, images = RunFolder(run_dir).read()[1], []
    for path in paths:
        picture = Image.open(path).convert("RGB")
        scale = max(round(side * info.resize_ratio) / min(picture.size) for side in (32, 32))
        sides = [round(side * scale) for side in picture.size]
        picture = picture.resize(sides, Image.BILINEAR)
        left, top = (sides[0] - 32) // 2, (sides[1] - 32) // 2
        images.append(np.asarray(picture.crop((left, top, left + 32, top + 32))))
    normalized = ((np.stack(images) - np.float64(info.mean)) / info.std).astype(np.float32)
    model = load_run(str(run_dir))
    expected = softmax(model.predict(normalized, verbose=0))
    np.testing.assert_allclose(by_class(keras_preact.predict(model, paths)), expected, atol=0.02)


def test_a_model_that_ends_in_a_softmax_gives_the_same_probabilities(run_dir, evaluated, models):
    import keras

    model = load_run(str(run_dir))
    with_softmax = keras.Sequential([model, keras.layers.Softmax()])
    with_softmax.preprocessing = model.preprocessing
    paths, expected = evaluated
    found = keras_preact.predict(with_softmax, paths)
    np.testing.assert_allclose(by_class(found), expected, atol=1e-5)


def test_a_threshold_leaves_out_the_classes_below_it(models, evaluated):
    paths, expected = evaluated
    threshold = float(np.median(expected))
    found = keras_preact.predict(models["keras"], paths, threshold=threshold)
    assert [len(each.classes) for each in found] == (expected >= threshold).sum(axis=1).tolist()
    for each in found:
        assert all(score >= threshold for score in each.scores)
    with pytest.raises(ValueError, match="threshold must be from 0 to 1"):
        keras_preact.predict(models["keras"], paths, threshold=50)


@pytest.mark.parametrize("multi_label", [False, True])
def test_models_of_every_kind_divide_logits_by_the_temperature(
    multi_label, run_dir, evaluated, tmp_path
):
    paths, expected = evaluated
    model = load_run(str(run_dir))
    logits = np.log(expected)
    changed = model.preprocessing.replace(multi_label=multi_label, temperature=0.25)
    if multi_label:
        # Softmax takes away a number that is the same for all classes, and a sigmoid shows it.
        [(images, _, _)] = restore_data(RunFolder(run_dir)).eval(len(paths)).as_numpy_iterator()
        logits = model.predict(changed.normalize(images), verbose=0)
        wanted = 1 / (1 + np.exp(-4 * logits))
        assert np.abs(wanted.sum(axis=1) - 1).max() > 0.01
    else:
        wanted = softmax(4 * logits)
    model.preprocessing = changed
    model.save(tmp_path / "net.keras")
    graph = rewriting.rewrite(network.trace(model, changed.image_shape))[-1].graph
    saved_model.write(graph, changed, tmp_path / "1")
    tflite.write(graph, changed, epath.Path(tmp_path / "lite"), "net", ("float32",))
    for name in ("net.keras", "1", "lite/float32.tflite"):
        found = keras_preact.predict(tmp_path / name, paths)
        np.testing.assert_allclose(by_class(found), wanted, atol=1e-5)


def test_a_folder_and_a_list_are_sources_and_predictions_come_one_by_one(images):
    folder = os.path.dirname(images[0])
    pathlib.Path(folder, "list.txt").write_text("03.png\n00.png\n03.png\n")
    classifier = fake()
    assert [each.file for each in keras_preact.predict(classifier, folder)] == images
    listed = keras_preact.predict(classifier, pathlib.Path(folder, "list.txt"))
    assert [each.file for each in listed] == ["03.png", "00.png", "03.png"]
    assert listed[0] == listed[2] != listed[1]
    computed = []
    stream = prediction.predictions(fake(computed=computed), images, batch_size=2)
    assert next(stream).file == images[0] and len(computed) == 1
    stream.close()


def harmed(folder):
    """Files of every kind that cannot be used, and words of the reason."""
    folder.mkdir()
    jpeg, png = (encode(smooth_image(40, 48), kind) for kind in ("JPEG", "PNG"))
    small = encode(smooth_image(8, 8), "JPEG")
    contents = {
        "text.jpg": (b"text", "Received another kind: a file of 4 bytes"),
        "empty.png": (b"", "empty file"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "not an image, or damaged"),
        "half.png": (png[: len(png) // 2], "not an image, or damaged"),
        "small.jpg": (small[: len(small) // 2], "not an image, or damaged"),
        "huge.png": (png[:16] + b"\0\0\xff\xff" * 2 + png[24:], "must have 1 to 50,000,000 pixels"),
        "start.jpg": (jpeg[:3], "not an image, or damaged"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    os.mkfifo(folder / "pipe.jpg")
    os.symlink("/dev/zero", folder / "zero.jpg")
    frames = [Image.fromarray(smooth_image(9, 8, seed)) for seed in range(2)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    others = {
        "pipe.jpg": "a FIFO, no regular file",
        "zero.jpg": "a device, no regular file",
        "film.gif": "animated GIF",
        "missing.jpg": "no such file",
        "a\0c.jpg": "no path",
        "s3://bucket/a.jpg": "'s3' not implemented",
    }
    reasons = {name: words for name, (_, words) in contents.items()} | others
    return {n if "://" in n else str(folder / n): words for n, words in reasons.items()}


def test_each_bad_file_has_its_reason_and_stops_no_other(images, tmp_path):
    reasons = harmed(tmp_path / "harmed")
    paths = [path for pair in zip(images * 2, reasons, strict=False) for path in pair]
    found = prediction.predict(fake(), paths, batch_size=4)
    assert [each.file for each in found] == paths
    good = {each.file: each for each in prediction.predict(fake(), images)}
    for each in found:
        if each.file in good:
            assert each == good[each.file]
        else:
            assert (each.classes, each.scores) == ((), ())
            assert reasons[each.file] in each.error and each.error.isprintable()
            assert "{{" not in each.error


def test_a_file_has_the_same_answer_to_the_last_bit_in_every_part_of_a_list(models, photographs):
    files = sources.find(photographs / "val")
    classifier = prediction.load(models["run"])
    choice = answers.Choice(3)
    whole = [p for some in answers.answer(classifier, files, range(12), choice, 5) for p in some]
    for start, stop in ((0, 12), (1, 3), (4, 12), (5, 10), (11, 12), (7, 7)):
        part = answers.answer(classifier, files, range(start, stop), choice, 5)
        assert [p for some in part for p in some] == whole[start:stop]


def test_names_of_any_bytes_are_read(images, tmp_path):
    names = ["a\nb.png", 'a,"b".png', "a[1]*?.png", os.fsdecode(b"caf\xe9.png"), " .png"]
    paths = [str(tmp_path / name) for name in names]
    for path in paths:
        os.link(images[0], path)
    [expected] = prediction.predict(fake(), images[:1])
    found = prediction.predict(fake(), paths)
    assert [(each.classes, each.scores) for each in found] == [
        (expected.classes, expected.scores)
    ] * len(names)
    assert [each.file for each in found] == paths


def test_no_more_classes_than_there_are_and_no_less_than_one(images):
    [few] = prediction.predict(fake(), images[:1], top_k=1)
    [all_classes] = prediction.predict(fake(), images[:1], top_k=99)
    assert len(few.classes) == 1 and set(all_classes.classes) == set(NAMES)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        prediction.predict(fake(), images, top_k=0)
    assert prediction.predict(fake(), []) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_plain_header_is_one_that_the_limits_admit(seed):
    rng = np.random.default_rng(seed)
    for kind in ("JPEG", "PNG"):
        options = {"progressive": bool(seed % 2)} if kind == "JPEG" else {}
        file = encode(smooth_image(9, 14, seed), kind, **options)
        assert limits.plain_sides(file) == (9, 14)
        for _ in range(60):
            data = bytearray(file)
            for place in rng.integers(0, min(len(data), 220), 2):
                data[place] = rng.integers(0, 256)
            data = bytes(data[: rng.integers(1, len(data) + 1)])
            if limits.plain_sides(data) != (9, 14):
                continue
            try:
                assert limits.problem(data, (9, 14)).numpy() == b""
            except tf.errors.InvalidArgumentError:  # a damaged header, which decoding refuses too
                with pytest.raises(tf.errors.InvalidArgumentError):
                    augmentation.decode(data)
            else:
                sides = tf.io.extract_jpeg_shape(data)[:2].numpy() if kind == "JPEG" else (9, 14)
                assert tuple(sides) == (9, 14) and orientation(data).numpy() == 1
