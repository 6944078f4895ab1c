"""report.json, recomputed from the files it describes; report.md; report.png."""

import hashlib
import io
import json
import os
import re
import subprocess

import matplotlib.image
import numpy as np
import pytest
from etils import epath
from small_exports import (
    artifact,
    evaluation_images,
    keras_probabilities,
    lite_probabilities,
    load_data,
    read_report,
    saved_model_probabilities,
)

from keras_preact.exporting.checks.parity import Agreement, Speed
from keras_preact.exporting.checks.tolerances import MaxLoss, Tolerance
from keras_preact.exporting.left_out import LeftOut
from keras_preact.exporting.report import Artifact, describe_files, to_json, to_markdown, to_png

NAMES = ("keras", "saved_model", "tflite/float32", "tflite/int8")
FILES = {
    "saved_model": "saved_model/1",
    "tflite/float32": "tflite/1/float32.tflite",
    "tflite/int8": "tflite/1/int8.tflite",
}


@pytest.fixture(scope="module")
def answers(digits_run, digits_export):
    """Labels, and each file's probabilities of every evaluation image, by name."""
    images, labels = evaluation_images(load_data(digits_run.folder))
    said = {
        "keras": keras_probabilities(digits_run.folder, images),
        "saved_model": saved_model_probabilities(digits_export, images=images),
        **{
            f"tflite/{kind}": lite_probabilities(
                digits_export / "tflite" / "1" / f"{kind}.tflite", images
            )
            for kind in ("float32", "int8")
        },
    }
    assert np.ptp(said["keras"]) > 0.5, "a network that says nothing proves nothing"
    return labels, said


def test_there_is_an_entry_for_keras_and_for_each_file(digits_export):
    entries = read_report(digits_export)["artifacts"]
    assert [entry["name"] for entry in entries] == list(NAMES)
    assert [entry["path"] for entry in entries] == [None, *FILES.values()]


def test_the_keras_model_answers_as_often_right_as_train_py_has_said(digits_run, digits_export):
    keras = artifact(digits_export, "keras")
    assert keras["images"] == digits_run.evaluation.count == 360
    assert keras["accuracy"] == digits_run.evaluation.accuracy
    assert (keras["max_difference"], keras["agreement"]) == (0, 1)
    assert 0.2 < keras["accuracy"] < 1


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_agreement_are_those_of_the_files(digits_export, answers, name):
    labels, said = answers
    entry, taken = artifact(digits_export, name), said[name].argmax(axis=1)
    # Between two equally likely classes another order of arithmetic may decide otherwise.
    slack = 0 if name != "tflite/int8" else 2 / 360
    assert entry["accuracy"] == pytest.approx((taken == labels).mean(), abs=slack)
    keras = said["keras"].argmax(axis=1)
    assert entry["agreement"] == pytest.approx((taken == keras).mean(), abs=slack)
    lost = ((keras == labels) & (taken != labels)).sum()
    gained = ((keras != labels) & (taken == labels)).sum()
    assert entry["lost"] == pytest.approx(lost, abs=360 * slack)
    assert entry["gained"] == pytest.approx(gained, abs=360 * slack)


@pytest.mark.parametrize("name", NAMES[1:])
def test_differences_are_those_of_the_files(digits_export, answers, name):
    _, said = answers
    entry, difference = artifact(digits_export, name), np.abs(said[name] - said["keras"])
    slack = {"rel": 0.02} if name == "tflite/int8" else {"abs": 2e-6}
    assert entry["max_difference"] == pytest.approx(difference.max(), **slack)
    assert entry["mean_difference"] == pytest.approx(difference.mean(), **slack)
    if name == "tflite/int8":
        assert entry["max_difference"] > 1e-3
        assert entry["worst_image"] == f"image {difference.max(axis=1).argmax()}"


@pytest.mark.parametrize("name", NAMES[1:])
def test_sizes_and_checksums_are_those_of_the_files(digits_export, name):
    entry, path = artifact(digits_export, name), digits_export / FILES[name]
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    expected = {
        str(file.relative_to(digits_export)): {
            "size_bytes": os.path.getsize(file),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    }
    assert entry["files"] == expected
    assert entry["size_bytes"] == sum(each["size_bytes"] for each in expected.values())
    if path.is_file():
        assert entry["sha256"] == expected[FILES[name]]["sha256"]


def test_the_list_in_the_report_is_sha256sums_and_the_folder_has_that_of_its_part(digits_export):
    listing = re.search(r"## SHA-256\n\n```\n(.*?\n)```", report_md(digits_export), re.DOTALL)[1]
    paths = [line.split(maxsplit=1)[1] for line in listing.splitlines()]
    made = subprocess.run(["sha256sum", *paths], cwd=digits_export, capture_output=True, text=True)
    assert listing == made.stdout
    of_folder = [line for line in listing.splitlines(keepends=True) if "saved_model/" in line]
    assert len(listing.splitlines()) == len(of_folder) + 2 > 6
    expected = hashlib.sha256("".join(of_folder).encode()).hexdigest()
    assert artifact(digits_export, "saved_model")["sha256"] == expected


def test_times_are_above_zero_and_tolerances_those_of_the_flags(digits_export):
    entries = {entry["name"]: entry for entry in read_report(digits_export)["artifacts"]}
    for entry in entries.values():
        assert entry["latency_milliseconds"] > 0 and entry["throughput_images_per_second"] > 0
    assert entries["keras"]["tolerance"] is None
    by_name = {name: entries[name]["tolerance"] for name in NAMES[1:]}
    of_float32 = {"max_difference": {"flag": "float32_tolerance", "value": 1e-4}}
    of_int8 = {"max_loss_points": {"flag": "int8_loss_points", "value": 5.0}}
    assert by_name == dict(zip(NAMES[1:], (of_float32, of_float32, of_int8), strict=True))


def test_the_report_says_what_was_exported_from_what_and_how(digits_run, digits_export):
    report, info = read_report(digits_export), load_data(digits_run.folder).info
    assert report["version"] == 1
    assert report["source"] == f"step 45 of {digits_run.folder}"
    assert report["model_name"] == report["model"]["name"] == "resnet8"
    assert report["flags"]["calibration_images"] == 100
    assert report["evaluation"] == {"images": 360, "available": 360}
    assert report["data"] == json.loads(json.dumps(info.to_json()))
    assert 0 <= report["serving_bytes"]["max_difference"] <= 1e-4
    assert report["serving_bytes"]["images"] == 64
    assert all(step["max_difference"] <= 1e-4 for step in report["rewriting"])


def report_md(folder):
    return (folder / "report.md").read_text()


def test_the_table_for_people_has_the_figures_of_report_json(digits_export):
    rows = re.findall(
        r"^\| (?:keras|saved_model|tflite/\w+) \|.*\|$", report_md(digits_export), re.M
    )
    assert len(rows) == len(NAMES)
    for row, name in zip(rows, NAMES, strict=True):
        entry = artifact(digits_export, name)
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == name
        assert cells[4:6] == [f"{entry['accuracy']:.2%}", f"{entry['agreement']:.2%}"]
        if name == "keras":
            assert cells[6] == "" and "loss_points" not in entry
        else:
            low, high = entry["loss_interval_points"]
            assert cells[6] == f"{entry['loss_points']:.2f} ({low:.2f} to {high:.2f})"
        if name != "keras":
            assert cells[1] == f"{entry['size_bytes'] / 1e6:.2f} MB"
            assert float(cells[2]) == pytest.approx(entry["max_difference"], rel=0.05)
            assert float(cells[3]) == pytest.approx(entry["mean_difference"], rel=0.05)
    assert "360 of 360 evaluation images" in report_md(digits_export)
    for command in read_report(digits_export)["commands"].values():
        assert f"\n{command}\n" in report_md(digits_export)


def test_the_reports_of_a_version_lie_with_it_and_those_of_the_newest_on_top(digits_export):
    for name in ("report.json", "report.md", "report.png"):
        of_version = digits_export / "reports" / "1" / name
        assert of_version.read_bytes() == (digits_export / name).read_bytes()


def test_the_picture_has_four_panels_with_a_bar_for_each_artifact(digits_export):
    panels = to_png.__wrapped__(TWO, "resnet8").axes
    widths = [[bar.get_width() for bar in axes.patches] for axes in panels]
    assert widths == [[0, 2], [75, 50], [4, 4], [1600, 1600]]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["keras", "tflite/int8"]
    for file in (io.BytesIO(to_png(TWO, "resnet8")), digits_export / "report.png"):
        pixels = matplotlib.image.imread(file)
        assert pixels.shape[1] > 1000 and np.ptp(pixels) == 1


def make_artifact(name, accuracy, size):
    path = None if size is None else f"{name}.tflite"
    return Artifact(
        name,
        Agreement(4, 0.25, 0.125, "image 3", accuracy, 1.0, 1, 0),
        Speed(4.0, 1600.0),
        path,
        None if size is None else Tolerance((MaxLoss("int8_loss_points", 1.0),)),
        {} if size is None else {path: (size, "ab" * 32)},
    )


TWO = [make_artifact("keras", 0.75, None), make_artifact("tflite/int8", 0.5, 2_000_000)]
FACTS = {
    "source": "x.keras",
    "version": 3,
    "model": {"name": "resnet8"},
    "data": {"name": "gifs", "class_names": ["a", "b"], "image_shape": [8, 8, 3], "margin": 1.0},
    "evaluation": {"images": 4, "available": 5},
    "created": "today",
    "machine": "abacus, 1 cores",
    "rewriting": [{"step": "dropped nothing", "max_difference": 0.0}],
    "tried_server": "a server",
    "is_labelled": True,
    "commands": {"Serve it": "serve | me"},
}


def test_a_report_can_be_written_where_serving_bytes_takes_no_evaluation_image():
    facts = {**FACTS, "serving_bytes": {"images": 0, "max_difference": None}}
    text = to_markdown(facts, TWO).decode()
    assert "no file that `serving_bytes` takes" in text
    assert "4 of 5 evaluation images" in text
    assert json.loads(to_json(facts, TWO))["artifacts"][1]["sha256"] == "ab" * 32


def test_what_has_been_left_out_has_its_figures_its_reason_and_its_command():
    left_out = [
        LeftOut("tflite/int8", "TFLite cannot compute in int8: ELU."),
        LeftOut("tflite/dynamic", "loses |much|", "run it", TWO[1].agreement, TWO[1].tolerance),
    ]
    facts = {**FACTS, "serving_bytes": {"images": 0, "max_difference": None}}
    text = to_markdown(facts, TWO, left_out).decode()
    section = text.partition("\n## Left out\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| tflite/")]
    assert [row.split(" | ")[:4] for row in rows] == [
        ["| tflite/dynamic", "2.5e-01", "1.2e-01", "50.00%"]
    ]
    for words in ("ELU", "No flag changes that", r"loses \|much\|", "\n```\nrun it\n```"):
        assert words in section
    elu, dynamic = json.loads(to_json(facts, TWO, left_out))["left_out"]
    assert (elu["command"], dynamic["command"]) == (None, "run it")
    assert (dynamic["lost"], dynamic["loss_points"]) == (1, 25)
    assert "## Left out" not in to_markdown(facts, TWO).decode()


def test_files_are_described_by_their_paths_in_the_export(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"abc")
    (tmp_path / "other").write_bytes(b"")
    root = epath.Path(tmp_path)
    # The test vector of FIPS 180-4.
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert describe_files(root, root / "a") == {"a/b/c": (3, abc)}
    assert describe_files(root, root / "a" / "b" / "c") == {"a/b/c": (3, abc)}


def test_the_report_shows_the_additions_that_lose_most_and_what_was_tried(digits_export):
    found = read_report(digits_export)["int8"]
    assert [each["unit"] for each in found["before"]] == [
        f"stage{stage}_unit1" for stage in (1, 2, 3)
    ]
    attempt = found["attempts"][found["written"]]
    assert attempt["float_additions"] == sum(
        each["rounding_decibels"] is None for each in found["after"]
    )
    section = report_md(digits_export).partition("\n## Residual additions in int8\n")[2]
    section = section.partition("\n## ")[0]
    assert f"(written) | {attempt['float_additions']} of 3 | {attempt['agreement']:.1%}" in section
    rows = [line for line in section.splitlines() if line.startswith("| stage")]
    rounding = {each["unit"]: each["rounding_decibels"] for each in found["before"]}
    assert [row.split(" | ")[0][2:] for row in rows] == sorted(rounding, key=rounding.get)


def test_without_residual_additions_or_int8_the_report_is_silent_about_them():
    facts = {**FACTS, "serving_bytes": {"images": 0, "max_difference": None}, "int8": None}
    assert "Residual additions" not in to_markdown(facts, TWO).decode()
