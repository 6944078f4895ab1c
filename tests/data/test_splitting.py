"""Images divided by their contents: shares, stability, and the table of a run."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_preact.data import splitting
from keras_preact.data.splitting import TEST, TRAIN, VAL, Division, differences, divide

fingerprints = st.lists(st.integers(0, 2**63 - 2), max_size=50)
splits = st.tuples(st.integers(1, 98), st.integers(1, 98)).filter(lambda parts: sum(parts) < 100)
splits = splits.map(lambda parts: (*parts, 100 - sum(parts)))

examples = settings(max_examples=100, deadline=None)


def of(values, split):
    return divide(np.array(values, np.int64), split).tolist()


@examples
@given(fingerprints, fingerprints, splits)
def test_an_image_stays_in_its_split_whatever_other_images_come_and_go(some, others, split):
    assert of(some + others, split) == of(some, split) + of(others, split)
    assert of(others[::-1] + some, split)[len(others) :] == of(some, split)


@examples
@given(fingerprints, splits)
def test_a_split_is_that_of_the_fraction_in_whole_numbers(values, split):
    train, val, _ = split
    for value, found in zip(values, of(values, split), strict=True):
        percent = 100 * value // 2**63
        assert found == (TRAIN if percent < train else VAL if percent < train + val else TEST)


@examples
@given(fingerprints, st.integers(1, 97), st.integers(1, 97))
def test_fewer_percent_for_training_take_images_from_training_alone(values, one, other):
    less, more = sorted((one, other))
    first, second = of(values, (less, 100 - less)), of(values, (more, 100 - more))
    assert all(a == TRAIN for a, b in zip(second, first, strict=True) if b == TRAIN)


def test_shares_are_the_percentages_in_expectation():
    values = np.random.default_rng(0).integers(0, 2**63 - 1, 100_000)
    counts = np.bincount(divide(values, (80, 15, 5)), minlength=3)
    # 5 standard deviations are 630 images at most.
    np.testing.assert_allclose(counts, [80_000, 15_000, 5_000], atol=650)
    assert np.bincount(divide(values, (60, 40))).sum() == 100_000
    assert set(divide(values, (80, 20, 0)).tolist()) == {TRAIN, VAL}


@pytest.mark.parametrize(
    "split", [(), (100,), (80, 10), (0, 90, 10), (100, 0), (70, 0, 30), (50, 60, -10), (25,) * 4]
)
def test_percentages_that_break_the_rule_are_refused(split):
    with pytest.raises(ValueError, match=r"in 80,10,10 or 80,20: at least 1 .* Received: split="):
        splitting.check(split)


def division(**splits):
    names = sorted(splits)
    numbers = np.array([splits[name] for name in names], np.int8)
    return Division([f"{name}.jpg" for name in names], numbers, ["ant"] * len(names)).to_csv()


def test_a_table_tells_path_split_and_label_of_each_image():
    labels = ["ant|bee", "", 'a "quoted", name']
    table = Division(["b.jpg", "a,b.jpg", "c\udcff.jpg"], np.array([0, 1, 2]), labels).to_csv()
    rows = list(csv.DictReader(io.StringIO(table.decode(errors="surrogateescape"))))
    assert rows == [
        {"path": "a,b.jpg", "split": "val", "label": ""},
        {"path": "b.jpg", "split": "train", "label": "ant|bee"},
        {"path": "c\udcff.jpg", "split": "test", "label": 'a "quoted", name'},
    ]


def test_differences_of_two_tables_are_moved_new_and_missing_images():
    before = division(a=TRAIN, b=VAL, c=TEST)
    assert differences(before, division(c=TEST, b=VAL, a=TRAIN)) == []
    found = differences(before, division(a=VAL, b=VAL, d=TRAIN))
    assert found == [
        ("a.jpg", "train", "val"),
        ("c.jpg", "test", "absent"),
        ("d.jpg", "absent", "train"),
    ]
    assert differences(before, b"", most=1) == [
        ("a.jpg", "train", "absent"),
        ("and 2 more", "", ""),
    ]
