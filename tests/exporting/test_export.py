"""Exports from end to end: their sources, their folders and their files."""

import io
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_exports import (
    artifact,
    evaluation_images,
    export,
    keras_probabilities,
    leaping_clock,
    lite_probabilities,
    load_data,
    read_report,
    saved_model_probabilities,
    train,
    tree,
    write_digits,
)
from tensorflow_serving.apis import prediction_log_pb2

from keras_preact import ResNetV2, exporting
from keras_preact.data import datasets
from keras_preact.exporting import ExportConfig
from keras_preact.exporting.serving import client
from keras_preact.support.lock import locked
from keras_preact.training import TrainConfig, run
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.distribution import compute_plan
from keras_preact.training.run import build_model
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.optimizer import make_optimizer
from keras_preact.training.steps.schedules import make_schedule
from keras_preact.training.steps.train_state import by_path, make_state

CONFIG = TrainConfig(dataset="digits", depth=8, train_steps=9, ema_decay=0.9)
IMAGE = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run's folder, and the probabilities of IMAGE by the averages saved after each step."""
    folder, info = RunFolder(tmp_path_factory.mktemp("runs") / "run"), datasets.load("digits").info
    folder.begin(CONFIG, info, compute_plan.make_compute_plan(CONFIG, compute_plan.Machine()))
    model = build_model(CONFIG, info)
    schedule = make_schedule(CONFIG, info.train_count)
    state = make_state(CONFIG, model, make_optimizer(CONFIG, schedule, model))
    checkpoints = Checkpoints(folder.checkpoints, state, keep=3)
    normalized = (IMAGE - np.float32(info.mean)) / np.float32(info.std)
    expected, averaged = {}, build_model(CONFIG, info)
    for step in (6, 7, 8):
        keras.utils.set_random_seed(step)
        averaged.set_weights(build_model(CONFIG, info).get_weights())
        values = by_path(averaged.variables)
        state.rows.average_weights.assign(state.weights.pack(values))
        state.rows.average_statistics.assign(state.statistics.pack(values))
        checkpoints.save(RunState(step=step), best=step == 6)
        expected[step] = tf.nn.softmax(averaged(normalized)).numpy()
    checkpoints.wait()
    return folder, expected


def test_the_best_or_the_newest_that_is_not_damaged_is_exported(saved, tmp_path, capsys):
    folder, expected = saved
    best = export(folder, checkpoint="best", output_dir=str(tmp_path / "best"))
    got = saved_model_probabilities(best, images=IMAGE)
    np.testing.assert_allclose(got, expected[6], atol=1e-5)
    [data] = (folder.checkpoints / "step-8").glob("*.data-*")
    data.write_bytes(data.read_bytes()[:-1])
    capsys.readouterr()
    newest = export(folder)
    got = saved_model_probabilities(newest, images=IMAGE)
    np.testing.assert_allclose(got, expected[7], atol=1e-5)
    told, line, *_ = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{folder.checkpoints / 'step-8'} is damaged: ")
    assert line == f"Exporting step 7 of {folder} to {folder.path / 'export'}"
    # An export does not clean up the run, which may be in use.
    assert (folder.checkpoints / "step-8").is_dir()


def test_while_another_process_exports_there_nothing_is_done(digits_run, tmp_path):
    with (
        locked(tmp_path / ".out.unfinished"),
        pytest.raises(ValueError, match=r"(?s)in use by process.*another --output_dir"),
    ):
        export(digits_run.folder, output_dir=str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_without_a_run_or_a_checkpoint_nothing_is_made(saved, tmp_path):
    with pytest.raises(ValueError, match=r"no .*config\.json"):
        export(tmp_path / "none")
    folder = RunFolder(tmp_path / "begun")
    folder.begin(*saved[0].read(), compute_plan.make_compute_plan(CONFIG, compute_plan.Machine()))
    before = tree(tmp_path)
    with pytest.raises(ValueError, match="There is no newest checkpoint"):
        export(folder)
    assert tree(tmp_path) == before


@pytest.fixture(scope="module")
def digits_as_files(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits_as_files")
    write_digits(root / "images")
    data = {"dataset": "folder", "data_dir": str(root / "images"), "augmentation": "none"}
    options = {"image_size": 16, "global_batch_size": 25, "train_steps": 30}
    return train(root / "run", **data, **options)


@pytest.mark.parametrize(
    "name", ["photographs_run", pytest.param("digits_as_files", marks=pytest.mark.slow)]
)
def test_files_sent_to_serving_bytes_get_the_answers_of_the_evaluation(request, tmp_path, name):
    trained = request.getfixturevalue(name)
    out = export(trained.folder, output_dir=str(tmp_path / "out"), eval_images=None)
    images, labels = evaluation_images(load_data(trained.folder))
    val = trained.folder.parent / "images" / "val"
    paths = sorted(val.rglob("*.*"), key=lambda path: (path.parent, path.name))
    assert [sorted(p.name for p in val.iterdir()).index(p.parent.name) for p in paths] == [*labels]
    files = np.array([path.read_bytes() for path in paths], object)
    got = saved_model_probabilities(out, signature="serving_bytes", image_bytes=files)
    expected = keras_probabilities(trained.folder, images)
    assert np.ptp(expected) > 0.5, "a network that says nothing proves nothing"
    np.testing.assert_allclose(got, expected, atol=1e-5)
    accuracy = np.mean(got.argmax(axis=1) == labels)
    assert accuracy == trained.evaluation.accuracy == artifact(out, "keras")["accuracy"]
    assert 1 / len(set(labels)) < accuracy < 1


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_a_run_of_any_precision_is_exported_as_it_is_evaluated_in_float32(tmp_path, precision):
    folder = tmp_path / "run"
    train(folder, dataset="digits", train_steps=3, precision=precision)
    out = export(folder, eval_images=None)
    config, _ = RunFolder(folder).read()
    evaluated = run(config.updated(mode="evaluate", precision="float32"))
    assert artifact(out, "keras")["accuracy"] == evaluated.accuracy
    images, _ = evaluation_images(load_data(folder))
    got = saved_model_probabilities(out, images=images[:50])
    np.testing.assert_allclose(got, keras_probabilities(folder, images[:50]), atol=1e-5)


def test_what_is_left_is_what_is_promised(digits_export):
    files = {str(p.relative_to(digits_export)) for p in digits_export.rglob("*") if p.is_file()}
    assert {name for name in files if "saved_model/" not in name} == {
        *(
            f"{folder}report.{kind}"
            for folder in ("", "reports/1/")
            for kind in ("json", "md", "png")
        ),
        *("tflite/1/float32.tflite", "tflite/1/int8.tflite"),
        *(f"serving/{name}" for name in ("models.config", "batching_parameters.txt", "client.py")),
        *(f"serving/{name}" for name in ("request_images.json", "request_bytes.json")),
        *("serving/batching_parameters.gpu.txt", "serving/monitoring.config"),
        *("serving/compose.yaml", "serving/example.jpg"),
    }
    assert {name for name in files if "saved_model/" in name} >= {
        *("saved_model/1/saved_model.pb", "saved_model/1/assets/class_names.txt"),
        *("saved_model/1/variables/variables.index",),
        *("saved_model/1/assets.extra/tf_serving_warmup_requests",),
    }
    assert [path.name for path in digits_export.parent.iterdir()] == ["out"]


def test_flags_reach_the_files(digits_run, tmp_path):
    options = {"version": 5, "freeze": True, "model_name": "my.net", "max_image_pixels": 64}
    options["serving_image"] = "registry/serving:1"
    out = export(digits_run.folder, output_dir=str(tmp_path / "out"), **options)
    for kind in ("saved_model", "reports"):
        assert [path.name for path in (out / kind).iterdir()] == ["5"]
    assert not (out / "tflite").exists()
    [variables] = (out / "saved_model/5/variables").glob("*.data*")
    assert variables.stat().st_size < 1000 < (out / "saved_model/5/saved_model.pb").stat().st_size
    assert 'name: "my.net"' in (out / "serving" / "models.config").read_text()
    warmup = str(out / "saved_model/5/assets.extra/tf_serving_warmup_requests")
    record = next(iter(tf.data.TFRecordDataset(warmup))).numpy()
    request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
    assert request.model_spec.name == "my.net"
    report = read_report(out)
    assert (report["version"], report["model_name"]) == (5, "my.net")
    assert report["evaluation"] == {"images": 20, "available": 360}
    assert artifact(out, "keras")["images"] == 20
    assert f"--model={out}/saved_model/5 " in report["commands"]["Classify an image"]
    assert "/models/my.net" in report["commands"]["Serve it"]
    assert "image: registry/serving:1" in (out / "serving" / "compose.yaml").read_text()
    assert " registry/serving:1 " in report["commands"]["Serve it"]
    too_large = tf.io.encode_png(np.zeros((9, 8, 1), np.uint8))
    predict = tf.saved_model.load(str(out / "saved_model" / "5")).signatures["serving_bytes"]
    [error] = predict(image_bytes=too_large[None])["error"].numpy()
    assert b"to 64 pixels" in error


@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_saved_model_in_another_precision_is_half_as_large_and_judged_by_its_answers(
    digits_run, digits_export, tmp_path, precision
):
    options = {"saved_model_precision": precision, "tflite": ("float32",), "eval_images": None}
    out = export(digits_run.folder, output_dir=str(tmp_path / "out"), **options)
    data = load_data(digits_run.folder)
    images, labels = evaluation_images(data)
    expected = keras_probabilities(digits_run.folder, images)
    got = saved_model_probabilities(out, images=images)
    assert got.dtype == np.float32
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.98
    assert 1e-5 < np.abs(got - expected).max() < 0.1
    found = artifact(out, "saved_model")
    assert found["accuracy"] == pytest.approx((got.argmax(axis=1) == labels).mean())
    assert found["tolerance"] == {
        "max_loss_points": {"flag": "saved_model_loss_points", "value": 1.0},
        "least_agreement_percent": {"flag": "saved_model_agreement_percent", "value": 95.0},
    }
    sizes = [
        next(folder.glob("saved_model/1/variables/*.data*")).stat().st_size
        for folder in (out, digits_export)
    ]
    assert 0.5 < sizes[0] / sizes[1] < 0.55
    # TFLite files do not change.
    lite = [(folder / "tflite/1/float32.tflite").read_bytes() for folder in (out, digits_export)]
    assert lite[0] == lite[1]


def test_the_next_export_is_the_next_version_and_leaves_all_else_alone(
    digits_run, digits_export, tmp_path
):
    out = tmp_path / "out"
    shutil.copytree(digits_export, out)
    (out / "serving" / "models.config").write_text('config { name: "resnet8" } # mine')
    (out / "serving" / "example.jpg").unlink()
    (out / "thesis.tex").write_text("years of work")
    before = tree(out)
    assert export(digits_run.folder, output_dir=str(out), eval_images=5) == out
    after = tree(out)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"report.json", "report.md", "report.png"}
    new = {name for name in after if name not in before}
    assert "serving/example.jpg" in new
    assert {name for name in new if "/2" not in name} == {"serving/example.jpg"}
    assert (read_report(out)["version"], artifact(out, "keras")["images"]) == (2, 5)
    images, _ = evaluation_images(load_data(digits_run.folder))
    one, two = (saved_model_probabilities(out, version, images=images[:9]) for version in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-6)
    with pytest.raises(ValueError, match="model_name must be that of the versions"):
        export(digits_run.folder, output_dir=str(out), model_name="another")
    with pytest.raises(ValueError, match="does not hold yet"):
        export(digits_run.folder, output_dir=str(out), version=1)
    assert tree(out) == after


@pytest.mark.parametrize(
    ("precision", "options"),
    [
        ("mixed_bfloat16", {"input_shape": (8, 8, 1), "classifier_activation": "softmax"}),
        ("float32", {"input_shape": (None, None, 1)}),
    ],
)
def test_a_keras_file_is_exported_to_a_folder_of_its_name(tmp_path, precision, options):
    keras.config.set_dtype_policy(precision)
    model, path = ResNetV2(8, classes=10, **options), tmp_path / "net.keras"
    model.save(path)
    keras.config.set_dtype_policy("float32")
    in_float32 = ResNetV2(8, classes=10, **options)
    in_float32.set_weights(model.get_weights())
    out = export_file(path, tflite=("float16",))
    assert out == tmp_path / "net"
    data = datasets.load("digits")
    images, labels = evaluation_images(data)
    normalized = ((images - np.float64(data.info.mean)) / data.info.std).astype(np.float32)
    expected = in_float32.predict(normalized, verbose=0)
    if "classifier_activation" not in options:
        expected = tf.nn.softmax(expected).numpy()
    got = saved_model_probabilities(out, images=images)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    entries = [artifact(out, name) for name in ("keras", "saved_model", "tflite/float16")]
    accuracy = np.mean(expected.argmax(axis=1) == labels)
    assert [entry["accuracy"] for entry in entries[:2]] == pytest.approx([accuracy] * 2)
    assert entries[2]["tolerance"]["max_difference"]["flag"] == "float16_tolerance"
    assert read_report(out)["source"] == str(path)


def export_file(path, **options):
    return export("", model=str(path), dataset="digits", eval_images=None, **options)


def test_the_files_beside_an_export_are_those_that_the_server_is_asked_with(digits_export):
    request = json.loads((digits_export / "serving" / "request_images.json").read_text())
    image = datasets.load("digits").eval_source.images[0]
    np.testing.assert_array_equal(request["instances"], [image])
    example = (digits_export / "serving" / "example.jpg").read_bytes()
    decoded = tf.io.decode_jpeg(example).numpy()
    # JPEG loses a little; another digit differs by about 80.
    assert np.abs(decoded.astype(int) - image).mean() < 3
    assert (digits_export / "serving" / "client.py").read_bytes() == io.FileIO(
        client.__file__
    ).read()


def test_additions_in_float32_can_be_asked_for(digits_run, digits_export, tmp_path):
    options = {"formats": ("tflite",), "tflite": ("int8",), "eval_images": None}
    options |= {"int8_additions": "float", "calibration_images": 100, "int8_loss_points": 5.0}
    out = tmp_path / "out"
    with leaping_clock():
        exporting.run(ExportConfig(run_dir=str(digits_run.folder), output_dir=str(out), **options))
    found = read_report(out)["int8"]
    assert [each["float_additions"] for each in found["attempts"]] == [0, 3]
    assert found["written"] == 1
    images, _ = evaluation_images(load_data(digits_run.folder))
    expected = keras_probabilities(digits_run.folder, images)
    got = [
        lite_probabilities(folder / "tflite/1/int8.tflite", images)
        for folder in (out, digits_export)
    ]
    errors = [np.abs(each - expected).mean() for each in got]
    assert errors[0] < errors[1]
    assert np.mean(got[0].argmax(axis=1) == expected.argmax(axis=1)) > 0.97
