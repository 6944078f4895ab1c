"""The files of a report: what they hold is what scikit-learn and other files say."""

import csv
import io
import json

import numpy as np
import pytest
from answers_of import random_answers
from PIL import Image
from sklearn import metrics as sklearn

from keras_preact.evaluation import figures
from keras_preact.support.files import damage


def _rows(path):
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture(scope="module")
def written(report):
    return json.loads((report / "report.json").read_text())


def test_the_folder_is_whole_and_has_every_file(report):
    assert damage(report) is None
    assert {path.name for path in report.iterdir()} == {
        *("report.json", "report.html", "manifest.json", "probabilities.npz"),
        *("per_class.csv", "confusion.csv", "predictions.csv", "comparison.csv"),
        *("confusion.png", "reliability.png"),
    }


def test_others_can_compute_the_numbers_again(report, written):
    saved = np.load(report / "probabilities.npz")
    labels, probabilities = saved["labels"], saved["probabilities"].astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted, numbers = probabilities.argmax(axis=1), written["numbers"]
    assert written["data"]["images"] == len(labels) == len(saved["paths"]) == 360
    assert numbers["accuracy"] == pytest.approx(sklearn.accuracy_score(labels, predicted))
    assert numbers["loss"] == pytest.approx(sklearn.log_loss(labels, probabilities), rel=1e-5)
    macro = sklearn.f1_score(labels, predicted, average="macro")
    assert numbers["macro_f1"] == pytest.approx(macro)
    low, high = written["intervals"]["accuracy"]
    assert low < numbers["accuracy"] < high


def test_the_tables_agree_with_each_other(report, written):
    rows = _rows(report / "predictions.csv")
    assert len(rows) == 360 and rows[3]["path"] == "image 3"
    labels, predicted = ([row[name] for row in rows] for name in ("label", "predicted"))
    right = np.mean([row["label_rank"] == "1" for row in rows])
    assert right == written["numbers"]["accuracy"] == sklearn.accuracy_score(labels, predicted)
    names = written["data"]["classes"]
    confusion = _rows(report / "confusion.csv")
    counts = [[int(row[name]) for name in names] for row in confusion]
    np.testing.assert_array_equal(counts, sklearn.confusion_matrix(labels, predicted, labels=names))
    by_class = _rows(report / "per_class.csv")
    recalls = sklearn.recall_score(labels, predicted, labels=names, average=None)
    np.testing.assert_allclose([float(row["recall"]) for row in by_class], recalls)
    assert [int(row["images"]) for row in by_class] == np.sum(counts, axis=1).tolist()


def test_two_models_are_compared(report, written):
    found = written["comparison"]
    # The same weights in another format.
    assert abs(found["differences"]["accuracy"]["value"]) < 0.01
    assert found["mcnemar"]["p_value"] > 0.2
    only = found["mcnemar"]["only_first"] + found["mcnemar"]["only_second"]
    assert len(_rows(report / "comparison.csv")) == only
    assert found["first"]["numbers"]["loss"] == written["numbers"]["loss"]
    assert found["model"]["sha256"] != written["model"]["sha256"]


def test_every_number_has_a_definition(written):
    definitions = written["definitions"]
    for name in written["numbers"]:
        known = name in definitions or name.partition("_")[0] in definitions
        assert known, name


def test_the_page_holds_its_pictures_and_no_links_to_others(report):
    html = (report / "report.html").read_text()
    # Two figures and eight examples.
    assert html.count("data:image/png;base64,") == 10
    assert "http" not in html.replace("http-equiv", "")
    assert (
        " --run_dir=" in html
        and "--temperature=" in html
        and "McNemar" in html
        and "Grad-CAM" in html
    )


@pytest.mark.parametrize("classes", [2, 40, 1000])
def test_the_confusion_matrix_is_a_picture_at_any_number_of_classes(classes):
    answers = random_answers(count=3 * classes, classes=classes)
    image = Image.open(io.BytesIO(figures.confusion(answers.confusion, answers.class_names)))
    assert min(image.size) >= 500 and max(image.size) <= 1600


def test_a_single_confusion_of_a_thousand_classes_can_be_seen():
    matrix = np.diag(np.full(1000, 50))
    names = [f"class {number}" for number in range(1000)]
    before = np.asarray(Image.open(io.BytesIO(figures.confusion(matrix, names))))
    matrix[100, 900] = 25
    after = np.asarray(Image.open(io.BytesIO(figures.confusion(matrix, names))))
    changed = np.argwhere((before != after).any(axis=-1))
    assert len(changed) >= 4
    # To the right of the middle, above it.
    middle = np.median(changed, axis=0) / before.shape[:2]
    assert middle[0] < 0.3 and 0.6 < middle[1] < 0.9
