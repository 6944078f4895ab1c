"""The flags of an export and their rules."""

import math

import pytest
from absl import flags as absl_flags

from keras_preact.exporting import ExportConfig
from keras_preact.support import flags


def parsed(*arguments):
    values = absl_flags.FlagValues()
    flags.define(ExportConfig, values)
    flags.parser("", ExportConfig, values)(["export.py", *arguments])
    return ExportConfig(**flags.given(ExportConfig, values))


def test_the_tolerances_are_those_that_are_promised():
    config = ExportConfig(run_dir="run")
    assert (config.float32_tolerance, config.float16_tolerance) == (1e-4, 1e-2)
    assert (config.int8_loss_points, config.int8_additions) == (1, "auto")
    assert config.tflite == ("float32", "float16", "dynamic", "int8")
    assert config.eval_images is None


@pytest.mark.parametrize(
    ("text", "kinds"),
    [("", ()), ("int8", ("int8",)), ("float32,int8", ("float32", "int8")), ("int8,", ("int8",))],
)
def test_tflite_files_are_listed_with_commas_and_there_may_be_none(text, kinds):
    assert parsed("--run_dir=run", f"--tflite={text}").tflite == kinds


def test_flags_reach_the_fields():
    config = parsed(
        *("--model=a/b.keras", "--dataset=folder", "--data_dir=images", "--image_size=32"),
        *("--version=7", "--freeze", "--model_name=Net-1.2_b", "--eval_images=9"),
        "--int8_additions=float",
        *("--float32_tolerance=0", "--float16_tolerance=1e-3", "--int8_loss_points=2.5"),
        *("--calibration_images=3", "--max_image_pixels=4", "--output_dir=out"),
    )
    assert config == ExportConfig(
        model="a/b.keras",
        dataset="folder",
        data_dir="images",
        image_size=32,
        version=7,
        freeze=True,
        model_name="Net-1.2_b",
        eval_images=9,
        int8_additions="float",
        float32_tolerance=0.0,
        float16_tolerance=1e-3,
        int8_loss_points=2.5,
        calibration_images=3,
        max_image_pixels=4,
        output_dir="out",
    )


COUNTS = ("version", "calibration_images", "max_image_pixels", "eval_images")
TOLERANCES = ("float32_tolerance", "float16_tolerance", "int8_loss_points")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Either run_dir must be given.*or model"),
        ({"run_dir": ""}, "Either run_dir must be given"),
        ({"run_dir": "r", "model": "m.keras", "dataset": "digits"}, "run_dir='r', model='m.keras'"),
        ({"run_dir": "run", "formats": ()}, "formats must be one or more, each once"),
        ({"run_dir": "run", "formats": ("keras", "keras")}, "each once. .* formats=keras,keras"),
        ({"run_dir": "run", "formats": ("onnx",)}, "formats must be of saved_model, tflite, keras"),
        ({"run_dir": "run", "formats": ("tflite",), "tflite": ()}, "formats=tflite needs a kind"),
        ({"model": "m.h5", "dataset": "digits"}, r"must be a \.keras file. Received: model='m\.h5"),
        ({"run_dir": "r", "dataset": "digits"}, "for model alone"),
        ({"run_dir": "r", "image_size": 8}, "for model alone"),
        (
            {"model": "m.keras", "dataset": "folder", "image_size": 0},
            "image_size must be at least 1",
        ),
        ({"run_dir": "r", "checkpoint": "last"}, "newest, best"),
        ({"run_dir": "r", "tflite": ("int8", "int4")}, "tflite='int4'. Did you mean 'int8'"),
        (
            {"run_dir": "r", "int8_additions": "int16"},
            "int8_additions must be one of auto, int8, float. Received: int8_additions='int16'",
        ),
        *(({"run_dir": "r", name: 0}, f"{name} must be at least 1") for name in COUNTS),
        *(({"run_dir": "r", name: 2**31}, "at most 2147483647") for name in COUNTS),
        *(
            ({"run_dir": "r", name: value}, f"{name} must be at least 0 and finite")
            for name in TOLERANCES
            for value in (-1e-9, math.nan, math.inf)
        ),
        *(
            ({"run_dir": "r", "model_name": name}, "model_name must begin with")
            for name in ("", "a/b", "-a", "a b", "ä", "a\n", "..")
        ),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        ExportConfig(**given)
