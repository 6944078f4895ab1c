"""Folders that an export refuses, and properties that all its versions share."""

import dataclasses
import json

import pytest

from keras_preact.data import datasets
from keras_preact.exporting.export_folder import ExportFolder

SHARED = {"class_names": ["ant", "bee"], "image_shape": [8, 8, 1]}


@pytest.fixture
def new(tmp_path):
    return tmp_path / "new"


@pytest.fixture
def first(tmp_path):
    """A folder that holds a version."""
    out = tmp_path / "out"
    (out / "saved_model" / "1").mkdir(parents=True)
    (out / "report.json").write_text(json.dumps({"data": SHARED, "model_name": "net"}))
    return out


@pytest.mark.parametrize(
    "names",
    [
        ["thesis.tex"],
        ["reports/q3.pdf", "report.md"],
        ["saved_model"],
        ["tflite/1/a"],
        ["saved_model/saved_model.pb", "report.md"],
        ["saved_model/1/saved_model.pb", "report.png", "report.pdf"],
    ],
    ids=" ".join,
)
def test_a_folder_that_holds_something_else_is_refused(new, names):
    for name in names:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        (new / name).write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        ExportFolder(new)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"data": 3}', json.dumps({"data": SHARED}), "\ud800", "[" * 5000),
        json.dumps({"data": SHARED, "model_name": 5}),
        json.dumps({"data": SHARED, "model_name": "net"}).replace("8, 8, 1", '"8", 8, 1'),
        json.dumps({"data": SHARED, "model_name": "net"}).replace('["ant", "bee"]', '"ab"'),
        json.dumps({"data": SHARED, "model_name": "net"}).replace('"ant", "bee"', "null"),
        json.dumps({"data": SHARED, "model_name": "net"}).replace("8, 8", "[" * 5000),
    ],
    ids=range(12),
)
def test_a_report_of_something_else_is_refused(first, text):
    (first / "report.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"report\.json is not the report of an export"):
        ExportFolder(first).name_to_serve(None, "net")


def test_what_is_not_shared_by_versions_may_be_anything_in_a_report(first):
    record = {"data": {**SHARED, "new": 1}, "model_name": "net", "artifacts": [{"drop": "NaN"}]}
    (first / "report.json").write_text(json.dumps(record).replace('"NaN"', "NaN"))
    assert ExportFolder(first).name_to_serve(None, "other") == "net"


def test_versions_are_of_one_set_of_classes_and_one_size_of_images(first, new):
    folder, digits = ExportFolder(first), datasets.load("digits").info
    same = dataclasses.replace(digits, class_names=("ant", "bee"))
    folder.check_same_net(same)
    ExportFolder(new).check_same_net(digits)
    for other, words in (
        (digits, "the same class_names"),
        (dataclasses.replace(same, class_names=("bee", "ant")), "the same class_names"),
        (dataclasses.replace(same, image_shape=(9, 8, 1)), "the same image_shape"),
    ):
        with pytest.raises(ValueError, match=f"{words}.*--output_dir"):
            folder.check_same_net(other)


def test_versions_are_served_under_one_name(first, new):
    assert ExportFolder(new).name_to_serve(None, "resnet8") == "resnet8"
    assert ExportFolder(new).name_to_serve("mine", "resnet8") == "mine"
    assert ExportFolder(first).name_to_serve(None, "resnet8") == "net"
    assert ExportFolder(first).name_to_serve("net", "resnet8") == "net"
    with pytest.raises(
        ValueError, match=r"'net', which the files in serving/ name.*model_name='mine'"
    ):
        ExportFolder(first).name_to_serve("mine", "resnet8")
