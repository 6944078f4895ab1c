"""TFLite files that are left out of an export, and the commands that export them all the same."""

import json
import pathlib
import shlex
import subprocess

import keras
import numpy as np
import pytest
from absl import flags as absl_flags
from small_exports import (
    artifact,
    classifier_kernel,
    evaluation_images,
    leaping_clock,
    lite_probabilities,
    newest_model,
    read_report,
    refused,
    softmax,
    spoiled,
    tree,
)

from keras_preact.data import load
from keras_preact.exporting import ExportConfig, PartlyExported
from keras_preact.exporting import run as export_run
from keras_preact.exporting.checks.parity import Agreement
from keras_preact.exporting.left_out import left_out
from keras_preact.programs import export as export_program
from keras_preact.support import flags, program
from keras_preact.support.commands import program as command_of

GOOD = Agreement(200, 0.3, 0.1, "image 7", 0.9, 1.0, lost=0, gained=0)
BAD = Agreement(200, 0.3, 0.1, "image 7", 0.7, 0.8, lost=40, gained=0)
WORSE = Agreement(200, 0.3, 0.1, "image 7", 0.5, 0.6, lost=81, gained=1)


def started(arguments):
    """The exit code of the program that a user starts with these arguments."""
    values = absl_flags.FlagValues()
    flags.define(ExportConfig, values)
    with (
        leaping_clock(),
        pytest.raises(SystemExit) as ended,
        program.ending(ExportConfig, "nothing is done"),
    ):
        flags.parser("", ExportConfig, values)(["export.py", *arguments])
        export_program.main(flags.given(ExportConfig, values))
        raise SystemExit(0)
    return ended.value.code


def arguments_of(command):
    assert command.startswith(f"{command_of('export')} ")
    return shlex.split(command.removeprefix(command_of("export")))


@pytest.fixture(scope="module")
def bad_for_int8(digits_run, tmp_path_factory):
    """A .keras file of a net whose features have such different ranges that int8 loses most."""
    model = newest_model(digits_run.folder)
    gamma, beta, *statistics = model.get_layer("head_bn").get_weights()
    kernel, bias = model.get_layer("logits").get_weights()
    # ReLU and pooling pass a factor on, so the net computes what it did.
    gamma[0], beta[0], kernel[0] = 5000 * gamma[0], 5000 * beta[0], kernel[0] / 5000
    model.get_layer("head_bn").set_weights([gamma, beta, *statistics])
    model.get_layer("logits").set_weights([kernel, bias])
    path = tmp_path_factory.mktemp("bad for int8") / "net.keras"
    model.save(path)
    return path


@pytest.mark.slow
def test_a_file_that_loses_too_much_is_left_out_and_the_command_that_is_shown_exports_it(
    bad_for_int8, tmp_path, capsys
):
    out, kinds = tmp_path / "my out", "--tflite=float16,int8"
    given = [f"--model={bad_for_int8}", "--dataset=digits", f"--output_dir={out}", kinds]
    assert started([*given, "--version=4", "--calibration_images=50"]) == 3
    shown = capsys.readouterr()
    assert "tflite/4/float16.tflite: " in shown.out and "int8.tflite" not in shown.out
    first, why, title, command = shown.err.splitlines()
    assert first == "Error: Exported without tflite/int8."
    assert why.startswith("Left out: tflite/int8: has an accuracy of ")
    assert title == "To export it all the same:"
    # All that is there is what the report lists.
    assert [path.name for path in (out / "tflite" / "4").iterdir()] == ["float16.tflite"]
    assert (out / "saved_model" / "4" / "saved_model.pb").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["my out"]
    [missing] = read_report(out)["left_out"]
    assert missing["name"] == "tflite/int8" and missing["command"] == command.strip()
    assert why == f"Left out: tflite/int8: {missing['reason']}"
    names = [each["name"] for each in read_report(out)["artifacts"]]
    assert names == ["keras", "saved_model", "tflite/float16"]
    page = (out / "report.md").read_text()
    assert "## Left out" in page and f"\n{missing['command']}\n" in page
    listing = page.partition("## SHA-256\n\n```\n")[2].partition("```")[0]
    check = ["sha256sum", "--check", "--strict"]
    subprocess.run(check, input=listing, text=True, cwd=out, check=True, capture_output=True)
    before = tree(out)
    # The command makes the next version, with all files.
    arguments = arguments_of(missing["command"])
    assert set(arguments) >= {*given, "--calibration_images=50"}
    [raised] = set(arguments) - {*given, "--calibration_images=50"}
    assert raised.startswith("--int8_loss_points=")
    assert started(arguments) == 0
    assert {path.name for path in (out / "tflite" / "5").iterdir()} == {
        *("float16.tflite", "int8.tflite")
    }
    assert read_report(out)["left_out"] == []
    after = tree(out)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"report.json", "report.md", "report.png"}
    # The figures are those of the file.
    data = load("digits")
    images, labels = evaluation_images(data)
    model = keras.models.load_model(bad_for_int8)
    normalized = ((images - np.float64(data.info.mean)) / data.info.std).astype(np.float32)
    right = softmax(model.predict(normalized, verbose=0)).argmax(axis=1) == labels
    said = lite_probabilities(out / "tflite" / "5" / "int8.tflite", images).argmax(axis=1)
    for entry in (missing, artifact(out, "tflite/int8")):
        # Between two equally likely classes another order of arithmetic may decide otherwise.
        assert entry["lost"] == pytest.approx((right & (said != labels)).sum(), abs=2)
        assert entry["gained"] == pytest.approx((~right & (said == labels)).sum(), abs=2)
        assert entry["loss_points"] == pytest.approx(100 * (entry["lost"] - entry["gained"]) / 360)
        low, high = entry["loss_interval_points"]
        assert 1 < low < entry["loss_points"] < high


def save_elu(path):
    """Writes a .keras file of a net with an operation that has no int8 form."""
    layers, images = keras.layers, keras.Input((8, 8, 1))
    x = layers.GlobalAveragePooling2D()(layers.ELU()(images))
    keras.Model(images, layers.Dense(10, name="logits")(x)).save(path)
    return path


def test_what_tflite_cannot_compute_is_left_out_and_no_command_is_shown(tmp_path, capsys):
    path = save_elu(tmp_path / "net.keras")
    given = [f"--model={path}", "--dataset=digits", "--eval_images=9", "--calibration_images=3"]
    assert started([*given, "--tflite=float32,int8"]) == 3
    assert capsys.readouterr().err.splitlines() == [
        "Error: Exported without tflite/int8.",
        "Left out: tflite/int8: TFLite cannot compute in int8: ELU.",
        "No flag changes that.",
    ]
    out = tmp_path / "net"
    assert [path.name for path in (out / "tflite" / "1").iterdir()] == ["float32.tflite"]
    [missing] = read_report(out)["left_out"]
    assert missing == {
        "name": "tflite/int8",
        "reason": "TFLite cannot compute in int8: ELU.",
        "command": None,
        "tolerance": None,
    }


def test_a_file_that_says_nan_is_left_out_and_no_tolerance_accepts_it(digits_run, tmp_path, capsys):
    out = tmp_path / "out"
    weights = np.ascontiguousarray(classifier_kernel(digits_run.folder).T)
    nan = np.full_like(weights, np.nan)
    with spoiled(out, "tflite/1/float32.tflite", weights, nan, tmp_path / "copy"):
        error = refused(digits_run.folder, out, capsys, 3, tflite=("float32",), eval_images=3)
    assert "tflite/float32: gives probabilities that are not finite, as for image 0." in error
    assert "No flag changes that." in error
    assert not (out / "tflite").exists()

    def no_constant(name):
        pytest.fail(f"JSON has no {name}")

    report = json.loads((out / "report.json").read_text(), parse_constant=no_constant)
    assert report["left_out"][0]["max_difference"] is None


def test_a_caller_gets_the_folder_and_what_is_missing(tmp_path):
    few = {"eval_images": 3, "calibration_images": 3, "tflite": ("int8",)}
    path = save_elu(tmp_path / "net.keras")
    config = ExportConfig(model=str(path), dataset="digits", **few)
    with leaping_clock(), pytest.raises(PartlyExported) as caught:
        export_run(config)
    assert pathlib.Path(caught.value.path) == tmp_path / "net" / "saved_model" / "1"
    assert (tmp_path / "net" / "saved_model" / "1" / "saved_model.pb").exists()
    assert not (tmp_path / "net" / "tflite").exists()
    assert [each.name for each in caught.value.left_out] == ["tflite/int8"]


def test_a_command_accepts_its_file_and_those_that_are_no_worse():
    config = ExportConfig(run_dir="my run", version=3, freeze=True, float16_tolerance=0.25)
    exceeding = {"float16": GOOD, "dynamic": WORSE, "int8": BAD}
    explained = left_out(config, {"float32": "TFLite lacks it."}, exceeding)
    assert [each.name for each in explained] == [
        f"tflite/{kind}" for kind in ("float32", "float16", "dynamic", "int8")
    ]
    kept = ["--run_dir=my run", "--freeze"]
    assert explained[0].command is None
    assert [set(arguments_of(each.command)) for each in explained[1:]] == [
        {*kept, "--tflite=float16", "--float16_tolerance=0.3"},
        {*kept, "--tflite=dynamic,int8", "--float16_tolerance=0.25", "--int8_loss_points=40"},
        {*kept, "--tflite=int8", "--float16_tolerance=0.25", "--int8_loss_points=20"},
    ]


def test_where_nothing_is_missing_nothing_is_explained():
    assert left_out(ExportConfig(run_dir="run"), {}, {}) == []
