"""Weights of classes: balanced ones as scikit-learn's, files, and their errors."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight
from small_labels import several_labels

from keras_preact.data import datasets
from keras_preact.training import class_weights

NAMES = ("ant", "bee, a", "cat")


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=8).filter(any))
def test_balanced_weights_are_scikit_learns_and_of_mean_1(counts):
    found = class_weights.balanced(np.array(counts))
    labels = np.repeat(np.arange(len(counts)), counts)
    here = np.unique(labels)
    expected = compute_class_weight("balanced", classes=here, y=labels)
    np.testing.assert_allclose(found[here], expected)
    assert found[labels].mean() == pytest.approx(1)
    assert (np.delete(found, here) == 1).all()


def test_the_training_images_are_counted():
    data = datasets.load("digits")
    weights = class_weights.of_run("auto", data, None)
    counts = np.bincount(data.train_source.labels)
    assert weights == pytest.approx({str(n): 1437 / (10 * count) for n, count in enumerate(counts)})


def test_of_several_labels_the_labels_are_counted():
    data = several_labels()
    weights = class_weights.of_run("auto", data, None)
    counts = data.train_source.labels.sum(axis=0)
    assert weights["above 9"] == 1
    assert weights["odd"] == pytest.approx(counts.sum() / (4 * counts[0]))


def test_recorded_weights_are_taken_as_they_are():
    data = datasets.load("digits")
    recorded = {str(n): float(n) for n in range(10)}
    assert class_weights.of_run("/no/such/file", data, recorded) == recorded
    assert class_weights.of_run(None, data, None) is None


def test_the_range_of_the_weights_is_told():
    told = class_weights.told({"ant": 0.51234, "bee": 3.0, "cat": 1.0})
    assert told == "Class weights from 0.512 ('ant') to 3 ('bee'); config.json has all"


def write(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def test_weights_are_read_from_json_and_csv(tmp_path):
    given = {"cat": 0, "ant": 1.5, "bee, a": 2}
    as_json = write(tmp_path, "weights.json", json.dumps(given))
    as_csv = write(tmp_path, "weights.CSV", 'class,weight\ncat,0\nant,1.5\n"bee, a",2\n')
    for path in (as_json, as_csv):
        found = class_weights.read(path, NAMES)
        assert found == given and list(found) == list(NAMES)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.json",
            '{"ant": 1, "cat": 2}',
            ["each class of the data", 'without a weight: "bee, a"'],
        ),
        ("a.json", '{"ant": 1, "cat": 1, "bee, a": 1, "dog": 1}', ['none of the data: "dog"']),
        ("a.json", '{"ant": 1, "cat": -2, "bee, a": 1}', ["at least 0", '"cat": -2']),
        ("a.json", '{"ant": 1, "cat": 1e999, "bee, a": 1}', ["finite weight", '"cat": inf']),
        ("a.json", '{"ant": 1, "cat": "2", "bee, a": 1}', ["must be a number", '"cat": "2"']),
        ("a.json", '{"ant": true, "cat": 2, "bee, a": 1}', ["must be a number", '"ant": true']),
        ("a.json", '{"ant": 0, "cat": 0, "bee, a": 0}', ["above 0", "0 for each of 3"]),
        ("a.json", "[1, 2, 3]", ["must be an object"]),
        ("a.json", "ant: 1", ["must be JSON"]),
        ("a.csv", "class,weight\nant,1\n", ['"bee, a", "cat"']),
        ("a.csv", "class,weight\nant,1\ncat,nan\nbee,1\n", ['without a weight: "bee, a"']),
        ("a.csv", 'class,weight\nant,1\ncat,nan\n"bee, a",1\n', ["finite", '"cat": nan']),
        ("a.csv", "class,weight\nant,heavy\n", ["must be a number", "'heavy'"]),
        ("a.csv", "class,weight\nant,1\nant,2\n", ["named once", "'ant'"]),
        ("a.csv", "name,weight\nant,1\n", ["class and weight", '["name", "weight"]']),
    ],
)
def test_a_wrong_file_is_refused_with_the_rule_and_what_was_received(tmp_path, name, text, words):
    path = write(tmp_path, name, text)
    with pytest.raises(ValueError) as error:
        class_weights.read(path, NAMES)
    for word in (path, *words):
        assert word in str(error.value)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"class_weights must be auto, or a file.*=balanced"):
        class_weights.read("balanced", NAMES)
