"""Tolerances of an export, and the end of an export that exceeds one."""

import dataclasses
import math
import shutil

import numpy as np
import pytest
from small_exports import (
    classifier_kernel,
    evaluation_images,
    export,
    keras_probabilities,
    lite_probabilities,
    load_data,
    newest_model,
    refused,
    saved_model_probabilities,
    spoiled,
    tree,
    when_said,
)
from tiny_nets import export as write_saved_model

from keras_preact.exporting import ExportConfig, ParityError
from keras_preact.exporting.checks import tolerances
from keras_preact.exporting.checks.parity import Agreement
from keras_preact.exporting.checks.tolerances import (
    LeastAgreement,
    MaxDifference,
    MaxLoss,
    Tolerance,
)

GOOD = Agreement(360, 0.0, 0.0, "photo 0", 0.9, 1.0, lost=0, gained=0)
FLOAT = Tolerance((MaxDifference("float32_tolerance", 1e-4),))
INT8 = Tolerance((MaxLoss("int8_loss_points", 1.0),))
BOTH = Tolerance((MaxLoss("loss_points", 1.0), LeastAgreement("agreement_percent", 99.0)))


def changed(images, lost, gained=0, **changes):
    """Answers of which some have changed, where the Keras model has 90 % right."""
    counts = {"images": images, "lost": lost, "gained": gained}
    shares = {
        "accuracy": 0.9 - (lost - gained) / images,
        "agreement": 1 - (lost + gained) / images,
    }
    return dataclasses.replace(GOOD, **counts, **shares, **changes)


@pytest.mark.parametrize(
    ("difference", "fails"),
    [(0.0, False), (1e-4, False), (1.0001e-4, True), (math.inf, True), (math.nan, True)],
)
def test_a_probability_may_differ_by_the_tolerance_and_not_by_more(difference, fails):
    agreement = dataclasses.replace(GOOD, max_difference=difference)
    assert (FLOAT.excess(agreement) is not None) == fails


def test_probabilities_that_are_not_finite_fail_even_where_only_accuracy_counts():
    by_chance = dataclasses.replace(GOOD, max_difference=math.inf, worst_image="photo 3")
    assert INT8.excess(GOOD) is None
    assert INT8.excess(by_chance) == "gives probabilities that are not finite, as for photo 3."
    assert INT8.sufficient(by_chance) is None


def test_three_lost_answers_of_two_hundred_may_be_chance_and_forty_are_not():
    assert INT8.excess(changed(200, 3)) is None
    excess = INT8.excess(changed(200, 40, worst_image="photo 5", max_difference=0.5))
    assert excess == (
        "has an accuracy of 70.00%, the Keras model of 90.00%: 20.00 points less (40 answers "
        "became wrong, 0 right, of 200 images), with 95 % confidence more than 15.46; allowed: 1 "
        "point of accuracy (--int8_loss_points). photo 5 differs most, by 0.5 in a probability."
    )


def test_where_no_loss_is_allowed_only_one_that_chance_does_not_explain_fails():
    strict = Tolerance((MaxLoss("int8_loss_points", 0.0),))
    for lost, gained, fails in ((0, 0, False), (3, 0, False), (4, 0, True), (20, 19, False)):
        assert (strict.excess(changed(1000, lost, gained)) is not None) == fails


def test_a_higher_accuracy_is_no_loss():
    assert Tolerance((MaxLoss("int8_loss_points", 0.0),)).excess(changed(360, 0, 6)) is None


def test_each_of_several_limits_must_be_kept_and_the_exceeded_ones_are_named():
    assert BOTH.excess(changed(1000, 5, 3)) is None
    both = BOTH.excess(changed(1000, 80))
    for words in ("8.00 points less", "1 point of accuracy (--loss_points), and agrees"):
        assert words in both
    # As many answers become right as wrong.
    one = BOTH.excess(changed(1000, 20, 20))
    assert "agrees with the Keras model on 96.00% of the answers (40 of 1,000 changed)" in one
    assert "allowed: 99 % of answers equal (--agreement_percent)" in one
    assert "--loss_points" not in one
    assert str(BOTH) == "1 point of accuracy, 99 % of answers equal"
    assert BOTH.to_json() == {
        "max_loss_points": {"flag": "loss_points", "value": 1.0},
        "least_agreement_percent": {"flag": "agreement_percent", "value": 99.0},
    }


def test_one_changed_answer_of_few_is_no_lack_of_agreement():
    agreement = Tolerance((LeastAgreement("agreement_percent", 99.0),))
    assert agreement.excess(changed(20, 1)) is None
    assert agreement.excess(changed(20, 2, 1)) is not None


def test_a_tolerance_has_a_limit():
    with pytest.raises(ValueError, match="at least one limit"):
        Tolerance(())


@pytest.mark.parametrize(
    ("tolerance", "agreement", "flags"),
    [
        (FLOAT, changed(9, 0, max_difference=0.01234), {"float32_tolerance": 0.013}),
        (FLOAT, changed(9, 0, max_difference=0.2), {"float32_tolerance": 0.2}),
        (INT8, changed(200, 40), {"int8_loss_points": 20}),
        (INT8, changed(360, 20, 1), {"int8_loss_points": 5.3}),
        (BOTH, changed(1000, 80), {"loss_points": 8, "agreement_percent": 92}),
        (BOTH, changed(1000, 20, 21), {"agreement_percent": 95}),
    ],
)
def test_the_values_of_flags_that_accept_a_file_are_round_and_do_accept_it(
    tolerance, agreement, flags
):
    assert tolerance.sufficient(agreement) == flags
    tolerant = (
        dataclasses.replace(limit, value=flags.get(limit.flag, limit.value))
        for limit in tolerance.limits
    )
    assert Tolerance(tuple(tolerant)).excess(agreement) is None


def test_each_kind_has_the_tolerance_of_its_flag():
    config = ExportConfig(
        run_dir="r", float32_tolerance=0.1, float16_tolerance=0.2, int8_loss_points=3
    )
    got = {k: tolerances.tolerance_of(k, config) for k in ("float32", "float16", "dynamic", "int8")}
    of_int8 = Tolerance((MaxLoss("int8_loss_points", 3),))
    assert got == {
        "float32": Tolerance((MaxDifference("float32_tolerance", 0.1),)),
        "float16": Tolerance((MaxDifference("float16_tolerance", 0.2),)),
        "dynamic": of_int8,
        "int8": of_int8,
    }


def test_every_file_beyond_its_tolerance_has_a_line_with_its_flag_and_worst_image():
    agreements = {
        "good": changed(360, 0, max_difference=1e-5),
        "far": changed(360, 0, max_difference=0.25, worst_image="photo 5"),
        "worse": changed(360, 24, max_difference=0.5, worst_image="photo 6"),
    }
    allowed = {"good": FLOAT, "far": FLOAT, "worse": INT8}
    with pytest.raises(ParityError) as caught:
        tolerances.check(agreements, allowed)
    head, far, worse = str(caught.value).splitlines()
    assert "360 evaluation images" in head and "Nothing has been exported" in head
    for words in ("far ", "0.25", "0.0001 in a probability", "--float32_tolerance", "photo 5"):
        assert words in far
    for words in ("worse ", "83.33%", "90.00%", "6.67 points", "--int8_loss_points", "photo 6"):
        assert words in worse
    tolerances.check(agreements, {"good": FLOAT})


@pytest.mark.parametrize(
    ("file", "code"),
    [("saved_model", 1), pytest.param("tflite/float32", 3, marks=pytest.mark.slow)],
)
def test_a_file_with_other_weights_is_refused_by_its_name_and_that_of_the_worst_image(
    photographs_run, tmp_path, capsys, file, code
):
    run_dir, out, copy = photographs_run.folder, tmp_path / "out", tmp_path / "copy"
    weights = classifier_kernel(run_dir)
    name = "saved_model/1/saved_model.pb"
    if file == "tflite/float32":
        name, weights = "tflite/1/float32.tflite", np.ascontiguousarray(weights.T)
    with spoiled(out, name, weights, weights * np.float32(1.5), copy / "saved_model" / "1"):
        options = {"freeze": True, "eval_images": None, "tflite": ("float32",)}
        error = refused(run_dir, out, capsys, code, **options)
    assert set(tmp_path.iterdir()) == ({copy} if code == 1 else {copy, out})
    data = load_data(run_dir)
    images, _ = evaluation_images(data)
    if file == "saved_model":
        got = saved_model_probabilities(copy, images=images)
    else:
        got = lite_probabilities(copy / "saved_model" / "1" / "float32.tflite", images)
    difference = np.abs(got - keras_probabilities(run_dir, images)).max(axis=1)
    line = error.splitlines()[1].removeprefix("Left out: ").replace(": ", " ")
    assert line.strip().startswith(f"{file} differs by {difference.max():.2g} in a probability")
    assert "--float32_tolerance" in line
    # Files in the order of their names: those of class 0 first.
    names = sorted(
        (run_dir.parent / "images" / "val").rglob("*.jpg"), key=lambda p: (p.parent, p.name)
    )
    assert f"{names[difference.argmax()]} differs most" in line
    assert difference.argmax() > 0


@pytest.mark.slow
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
    weights = classifier_kernel(digits_run.folder)
    nan, copy = np.full_like(weights, np.nan), tmp_path / "copy"
    with spoiled(out, "saved_model/2/saved_model.pb", weights, nan, copy):
        error = refused(digits_run.folder, out, capsys, freeze=True, eval_images=3)
    assert "saved_model gives probabilities that are not finite" in error
    after = tree(tmp_path)
    assert {name for name in after if not name.startswith("copy")} == set(before)
    assert all(after[name] == before[name] for name in before)
