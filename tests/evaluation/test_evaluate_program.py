"""`keras-preact evaluate` as a user starts it, and as a function."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from colour_net import NAMES, colour_model, write_colours

import keras_preact
from keras_preact import load_run
from keras_preact.evaluation import EvaluateConfig, evaluate, run
from keras_preact.training.reporting import metrics_file

EVALUATE = ("-m", "keras_preact", "evaluate")


def test_a_run_is_evaluated_on_its_own_data_into_its_own_folder(server, digits):
    flags = (f"--model={digits['run']}", "--resamples=50", "--shown_images=0")
    code, out, err = server.call(*EVALUATE, *flags)
    assert (code, err) == (0, "")
    assert "on 360 images (val of digits), 8 x 8 pixels" in out
    assert f" --run_dir={digits['run']} --temperature=" in out
    folder = digits["run"] / "evaluation" / "val"
    assert out.endswith(f"Report: {folder / 'report.html'}\n")
    # Training has found the same.
    written = json.loads((folder / "report.json").read_text())["numbers"]
    trained = metrics_file.read(digits["run"] / "metrics.csv")[-1]
    assert written["accuracy"] == pytest.approx(trained.eval_accuracy)
    assert written["loss"] == pytest.approx(trained.eval_loss, rel=1e-5)
    # A second report needs to be asked for.
    config = EvaluateConfig(model=str(digits["run"]), resamples=0, shown_images=0)
    with pytest.raises(ValueError, match=r"holds a report already\. Give --overwrite"):
        run(config)
    run(dataclasses.replace(config, overwrite=True))


@pytest.mark.parametrize("kind", ["keras", "saved_model", "tflite"])
def test_a_model_of_every_kind_has_the_numbers_of_its_run(digits, kind, tmp_path):
    options = {"dataset": "digits", "resamples": 0, "shown_images": 1}
    expected = evaluate(digits["run"], resamples=0).numbers
    found = evaluate(digits[kind], **options, output=str(tmp_path / "report"))
    for name, number in expected.items():
        assert found.numbers[name] == pytest.approx(number, abs=2e-3), name
    html = (tmp_path / "report" / "report.html").read_text()
    assert ("There is no Grad-CAM" in html) == (kind != "keras")
    assert ("this is an export" in html) == (kind != "keras")


def test_unreadable_files_end_the_program_with_code_3_unless_they_are_skipped(
    server, digits, tmp_path, capsys
):
    folder = write_colours(tmp_path / "photos", {})
    for name in map(str, range(10)):
        (folder / name).mkdir(parents=True)
    write_colours(tmp_path / "source", {"red": 3})
    for number in range(3):
        data = (tmp_path / "source" / "red" / f"{number}.png").read_bytes()
        (folder / str(number) / "a.png").write_bytes(data)
    (folder / "7" / "bad.png").write_text("text")
    output = tmp_path / "report"
    flags = [f"--model={digits['run']}", f"--data_dir={folder}", f"--output={output}"]
    flags += ["--resamples=0", "--shown_images=1"]
    code, out, err = server.call(*EVALUATE, *flags)
    assert code == 3 and "on 3 images" in out
    assert "1 files could not be read as images" in err and "bad.png: " in err
    unreadable = json.loads((output / "report.json").read_text())["data"]["unreadable"]
    assert list(unreadable) == [str(folder / "7" / "bad.png")]
    options = {"resamples": 0, "skip_bad_images": True, "overwrite": True, "output": str(output)}
    run(EvaluateConfig(model=str(digits["run"]), data_dir=str(folder), **options))
    assert "Left out 1 files" in capsys.readouterr().out


def test_wrong_input_ends_with_code_2_and_one_line(server, digits, tmp_path):
    model = f"--model={digits['keras']}"
    (tmp_path / "file").write_text("mine")
    for flags, words in (
        ([], "model must be given"),
        ([model], "dataset or data_dir must be given"),
        ([f"--model={tmp_path}", "--dataset=digits"], "model must be the folder of a run"),
        ([model, "--dataset=digits", f"--output={tmp_path}"], "which holds something else: file"),
        ([model, "--dataset=digits", "--split=test"], "digits has no other"),
        ([model, "--data_dir=/none"], "must hold a folder for each class"),
        ([f"--model={digits['tflite']}", "--dataset=digits", "--image_size=9"], "an export"),
    ):
        code, out, err = server.call(*EVALUATE, *flags, cwd=tmp_path)
        assert (code, out) == (2, ""), err
        assert err.startswith("Error: ") and words in err and err.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_a_keras_model_and_a_loaded_one_are_taken_from_python(digits, tmp_path):
    model = load_run(str(digits["run"]))
    found = keras_preact.evaluate(model, dataset="digits", resamples=20)
    assert found.model.name == model.name and {"accuracy", "loss"} < set(found.measures.intervals)
    folder = write_colours(tmp_path / "photos", dict.fromkeys(NAMES, 2))
    loaded = keras_preact.evaluate(colour_model(), data_dir=str(folder), resamples=0)
    assert loaded.numbers["accuracy"] == 1 and loaded.measures.intervals == {}


def test_a_temperature_that_the_model_has_already_is_counted(digits):
    model = load_run(str(digits["run"]))
    plain = keras_preact.evaluate(model, dataset="digits", resamples=0).measures.temperature
    scaled = keras.models.clone_model(model)
    scaled.set_weights(model.get_weights())
    logits = scaled.get_layer("logits")
    logits.set_weights([value / 2 for value in logits.get_weights()])
    scaled.preprocessing = model.preprocessing.replace(temperature=1.0)
    half = keras_preact.evaluate(scaled, dataset="digits", resamples=0).measures.temperature
    assert half.value == pytest.approx(plain.value / 2, rel=5e-3)
    assert np.isfinite(plain.loss) and half.loss == pytest.approx(plain.loss, rel=1e-3)


def test_a_probability_that_is_not_finite_is_an_error(digits):
    model = load_run(str(digits["run"]))
    logits = model.get_layer("logits")
    logits.set_weights([np.full_like(value, np.nan) for value in logits.get_weights()])
    with pytest.raises(RuntimeError, match="not finite for 360 images, the first image 0"):
        keras_preact.evaluate(model, dataset="digits")
