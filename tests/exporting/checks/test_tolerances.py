"""Tolerances of an export, and the end of an export that exceeds one."""

import contextlib
import dataclasses
import fractions
import math
import shutil

import numpy as np
import pytest
from small_exports import (
    evaluation_images,
    export,
    keras_probabilities,
    lite_probabilities,
    load_data,
    saved_model_probabilities,
    tree,
    when_said,
)
from tiny_nets import export as write_saved_model

from keras_preact.exporting import ExportConfig, ParityError
from keras_preact.exporting.checks import tolerances
from keras_preact.exporting.checks.parity import Agreement
from keras_preact.support import program
from keras_preact.training.checkpoints.checkpoint import find
from keras_preact.training.run import restore_model
from keras_preact.training.run_folder import RunFolder

GOOD = Agreement(360, 0.0, 0.0, "photo 0", 0.9, 1.0)
FLOAT = tolerances.Tolerance("float32_tolerance", max_difference=1e-4)


def accurate(right, images, **changes):
    return dataclasses.replace(GOOD, images=images, accuracy=right / images, **changes)


@pytest.mark.parametrize(
    ("difference", "fails"),
    [(0.0, False), (1e-4, False), (1.0001e-4, True), (math.inf, True), (math.nan, True)],
)
def test_a_probability_may_differ_by_the_tolerance_and_not_by_more(difference, fails):
    agreement = dataclasses.replace(GOOD, max_difference=difference)
    assert (FLOAT.excess(agreement, GOOD) is not None) == fails


def test_probabilities_that_are_not_finite_fail_even_where_only_accuracy_counts():
    by_chance = accurate(324, 360, max_difference=math.inf)
    tolerance = tolerances.Tolerance("int8_loss_points", max_loss_points=1.0)
    assert tolerance.excess(accurate(324, 360), GOOD) is None
    assert "not finite" in tolerance.excess(by_chance, GOOD)


@pytest.mark.parametrize(
    ("images", "points", "allowed"),
    [
        *((100, 1.0, 1), (360, 1.0, 3), (10_000, 1.0, 100), (99, 1.0, 0), (199, 1.0, 1)),
        *((360, 0.0, 0), (1000, 0.7, 7), (200, 1.5, 3), (50_000, 0.29, 145), (60, 100.0, 60)),
        # Whole numbers of images whose shares are not exact in floating point.
        *((5000, 1.14, 57), (500, 64.6, 323), (2000, 32.3, 646), (10_000, 0.07, 7)),
    ],
)
def test_the_allowed_number_of_images_may_be_lost_and_no_more(images, points, allowed):
    assert allowed == math.floor(fractions.Fraction(str(points)) * images / 100)
    tolerance = tolerances.Tolerance("int8_loss_points", max_loss_points=points)
    for right in {images, max(images // 2, allowed + 1)} - {0}:
        keras = accurate(right, images)
        assert tolerance.excess(accurate(right - allowed, images), keras) is None
        if right > allowed:
            assert tolerance.excess(accurate(right - allowed - 1, images), keras)


def test_a_higher_accuracy_is_no_loss():
    tolerance = tolerances.Tolerance("int8_loss_points", max_loss_points=0.0)
    assert tolerance.excess(accurate(330, 360), GOOD) is None


def test_each_kind_has_the_tolerance_of_its_flag():
    config = ExportConfig(
        run_dir="r", float32_tolerance=0.1, float16_tolerance=0.2, int8_loss_points=3
    )
    got = {k: tolerances.tolerance_of(k, config) for k in ("float32", "float16", "dynamic", "int8")}
    of_int8 = tolerances.Tolerance("int8_loss_points", max_loss_points=3)
    assert got == {
        "float32": tolerances.Tolerance("float32_tolerance", max_difference=0.1),
        "float16": tolerances.Tolerance("float16_tolerance", max_difference=0.2),
        "dynamic": of_int8,
        "int8": of_int8,
    }


def test_every_file_beyond_its_tolerance_has_a_line_with_its_flag_and_worst_image():
    agreements = {
        "keras": accurate(324, 360),
        "good": accurate(324, 360, max_difference=1e-5),
        "far": accurate(324, 360, max_difference=0.25, worst_image="photo 5"),
        "worse": accurate(300, 360, max_difference=0.5, worst_image="photo 6"),
    }
    int8 = tolerances.Tolerance("int8_loss_points", max_loss_points=1.0)
    allowed = {"good": FLOAT, "far": FLOAT, "worse": int8}
    with pytest.raises(ParityError) as caught:
        tolerances.check(agreements, "keras", allowed)
    head, far, worse = str(caught.value).splitlines()
    assert "360 evaluation images" in head and "Nothing has been exported" in head
    for words in ("far ", "0.25", "0.0001 in a probability", "--float32_tolerance", "photo 5"):
        assert words in far
    for words in ("worse ", "83.33%", "90.00%", "6.67 points", "--int8_loss_points", "photo 6"):
        assert words in worse
    tolerances.check(agreements, "keras", {"good": FLOAT})


def newest_model(run_dir):
    folder = RunFolder(run_dir)
    return restore_model(folder, find(folder.checkpoints, "newest"))


def classifier_kernel(run_dir):
    return newest_model(run_dir).get_layer("logits").kernel.numpy()


def refused(run_dir, out, capsys, **options):
    """The message of an export in this process that ends with code 1, as export.py does."""
    with pytest.raises(SystemExit) as ended, program.ending(ExportConfig, "nothing is done"):
        export(run_dir, output_dir=str(out), **options)
    assert ended.value.code == 1
    return capsys.readouterr().err


@contextlib.contextmanager
def spoiled(out, name, weights, others, copy):
    """Changes weights in a file of an unfinished export, and copies the file's folder.

    It does so when all files have been written, and before they are read and compared.
    """

    def spoil():
        path = out.parent / f".{out.name}.unfinished" / ".stage" / name
        before = path.read_bytes()
        assert before.count(weights.tobytes()) == 1
        path.write_bytes(before.replace(weights.tobytes(), others.tobytes()))
        shutil.copytree(path.parent, copy)

    with when_said("Comparing with the Keras model", spoil):
        yield


@pytest.mark.parametrize("file", ["saved_model", "tflite/float32"])
def test_a_file_with_other_weights_is_refused_by_its_name_and_that_of_the_worst_image(
    photographs_run, tmp_path, capsys, file
):
    run_dir, out, copy = photographs_run.folder, tmp_path / "out", tmp_path / "copy"
    weights = classifier_kernel(run_dir)
    name = "saved_model/1/saved_model.pb"
    if file == "tflite/float32":
        name, weights = "tflite/1/float32.tflite", np.ascontiguousarray(weights.T)
    with spoiled(out, name, weights, weights * np.float32(1.5), copy / "saved_model" / "1"):
        options = {"freeze": True, "eval_images": None, "tflite": ("float32",)}
        error = refused(run_dir, out, capsys, **options)
    assert list(tmp_path.iterdir()) == [copy]
    data = load_data(run_dir)
    images, _ = evaluation_images(data)
    if file == "saved_model":
        got = saved_model_probabilities(copy, images=images)
    else:
        got = lite_probabilities(copy / "saved_model" / "1" / "float32.tflite", images)
    difference = np.abs(got - keras_probabilities(run_dir, images)).max(axis=1)
    [line] = error.splitlines()[1:]
    assert line.strip().startswith(f"{file} differs by {difference.max():.2g} in a probability")
    assert "--float32_tolerance" in line
    # Files in the order of their names: those of class 0 first.
    names = sorted(
        (run_dir.parent / "images" / "val").rglob("*.jpg"), key=lambda p: (p.parent, p.name)
    )
    assert f"{names[difference.argmax()]} differs most" in line
    assert difference.argmax() > 0


def test_an_image_file_that_is_decoded_otherwise_is_refused_by_its_name(
    photographs_run, tmp_path, capsys
):
    run_dir, out = photographs_run.folder, tmp_path / "out"

    def write_another_resize():
        version = tmp_path / ".out.unfinished" / ".stage" / "saved_model" / "1"
        shutil.rmtree(version)
        info = dataclasses.replace(load_data(run_dir).info, resize_ratio=1.0)
        write_saved_model(version, newest_model(run_dir), info)

    with when_said("Comparing with the Keras model", write_another_resize):
        error = refused(run_dir, out, capsys)
    assert "serving_bytes differs" in error and "--float32_tolerance" in error
    assert str(photographs_run.folder.parent / "images" / "val") in error
    assert list(tmp_path.iterdir()) == []


def test_an_export_with_a_network_that_says_nan_is_refused_and_earlier_ones_stay(
    digits_run, tmp_path, capsys
):
    out = tmp_path / "out"
    export(digits_run.folder, output_dir=str(out))
    before = tree(tmp_path)
    weights = np.ascontiguousarray(classifier_kernel(digits_run.folder).T)
    nan, copy = np.full_like(weights, np.nan), tmp_path / "copy"
    with spoiled(out, "tflite/2/float32.tflite", weights, nan, copy):
        error = refused(digits_run.folder, out, capsys, tflite=("float32",), eval_images=3)
    assert "tflite/float32 gives probabilities that are not finite" in error
    after = tree(tmp_path)
    assert {name for name in after if not name.startswith("copy")} == set(before)
    assert all(after[name] == before[name] for name in before)
