"""Comparisons of answers and times of functions that stand for models."""

import math
import time
import types

import numpy as np
import pytest

from keras_preact.data import load
from keras_preact.exporting.checks import parity

CLASSES = 4


def probabilities(count=11, seed=0):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(CLASSES), count).astype(np.float32)


def batches(count, size, labels=None):
    """Batches of `Dataset.eval`: an image's pixel is its position; padding is image 0."""
    labels = np.zeros(count, np.int32) if labels is None else labels
    for start in range(0, count, size):
        positions = np.arange(start, start + size)
        counted = positions < count
        positions = np.where(counted, positions, 0)
        images = positions.astype(np.uint8)[:, None, None, None]
        yield images, labels[positions], counted.astype(np.float32)


def from_table(table):
    """A model that looks its answers up in a table."""
    return lambda images: table[images[:, 0, 0, 0]]


def compared(tables, labels=None, size=4):
    predictors = {name: from_table(table) for name, table in tables.items()}
    count = len(tables["keras"])
    return parity.compare(predictors, "keras", batches(count, size, labels), "image {}".format)


@pytest.mark.parametrize("size", [1, 4, 11, 32])
def test_figures_are_numpys_over_all_images_however_they_are_batched(size):
    labels = np.random.default_rng(1).integers(0, CLASSES, 11)
    tables = {"keras": probabilities(), "file": probabilities(seed=2)}
    got = compared(tables, labels, size)["file"]
    difference = np.abs(tables["file"] - tables["keras"])
    taken = tables["file"].argmax(1)
    assert got.images == 11
    assert got.max_difference == difference.max()
    assert got.mean_difference == pytest.approx(difference.mean(), rel=1e-5)
    assert got.worst_image == f"image {difference.max(axis=1).argmax()}"
    assert got.accuracy == pytest.approx(np.mean(taken == labels))
    assert got.agreement == pytest.approx(np.mean(taken == tables["keras"].argmax(1)))
    changes = np.int8(tables["keras"].argmax(1) == labels) - np.int8(taken == labels)
    assert (got.lost, got.gained) == ((changes == 1).sum(), (changes == -1).sum())
    assert got.changed == np.sum(taken != tables["keras"].argmax(1))
    assert got.loss_points == pytest.approx(100 * changes.mean())
    low, high = got.loss_interval_points
    assert low < got.loss_points < high


def test_where_images_have_several_labels_an_answer_is_right_if_all_are():
    keras = np.float32([[0.9, 0.2, 0.7], [0.5, 0.4, 0.1], [0.1, 0.1, 0.1]])
    file = np.float32([[0.8, 0.6, 0.7], [0.5, 0.3, 0.2], [0.1, 0.6, 0.1]])
    labels = np.float32([[1, 0, 1], [1, 0, 0], [0, 1, 0]])
    got = compared({"keras": keras, "file": file}, labels, size=2)["file"]
    assert got.accuracy == pytest.approx(2 / 3)
    assert got.agreement == pytest.approx(1 / 3)
    assert (got.lost, got.gained, got.changed) == (1, 1, 2)


def test_a_model_agrees_with_itself():
    tables = {"keras": probabilities(), "copy": probabilities()}
    got = compared(tables, tables["keras"].argmax(1))
    for agreement in got.values():
        assert (agreement.max_difference, agreement.mean_difference) == (0, 0)
        assert (agreement.accuracy, agreement.agreement) == (1, 1)
        assert (agreement.lost, agreement.gained, agreement.changed) == (0, 0, 0)


@pytest.mark.parametrize(
    ("broken", "value"),
    [("file", math.nan), ("file", math.inf), ("file", -math.inf), ("keras", math.nan)],
)
def test_what_is_not_finite_is_infinitely_different_and_the_image_is_known(value, broken):
    tables = {"keras": probabilities(), "file": probabilities()}
    tables[broken][7, 2] = value
    got = compared(tables)["file"]
    assert got.max_difference == math.inf
    assert got.worst_image == "image 7"


def test_the_filling_of_the_last_batch_does_not_count():
    tables = {"keras": probabilities(9), "file": probabilities(9)}
    tables["file"][0] += 0.25
    alone = compared(tables, size=9)["file"]
    assert compared(tables, size=32)["file"] == alone
    assert alone.mean_difference == pytest.approx(0.25 / 9)


def test_batches_of_a_data_set_are_taken_as_they_come():
    digits, seen = load("digits"), []

    def predict(images):
        seen.append(images.shape)
        return np.eye(10, dtype=np.float32)[images.reshape(len(images), -1).sum(1) % 10]

    indices = np.arange(3, 360, 17)
    stream = digits.eval(8, indices=indices).as_numpy_iterator()
    got = parity.compare({"keras": predict}, "keras", stream, str)["keras"]
    images, labels = digits.eval_source.images[indices], digits.eval_source.labels[indices]
    expected = images.reshape(len(indices), -1).sum(1) % 10 == labels
    assert got.images == len(indices) == 21
    assert got.accuracy == pytest.approx(expected.mean())
    assert set(seen) == {(8, 8, 8, 1)}


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only while a model computes."""
    clock = types.SimpleNamespace(now=0.0, calls=[])
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    return clock


def timed(clock, name, seconds):
    """A model that takes seconds(batch size), and an hour more on its first call for a size."""
    known = set()

    def predict(images):
        clock.now += seconds(len(images)) + (3600 if len(images) not in known else 0)
        known.add(len(images))
        clock.calls.append((name, len(images)))

    return predict


IMAGE = np.zeros((2, 2, 1), np.uint8)


def test_speed_is_that_of_one_image_and_of_batches_of_32_once_all_is_warm(clock):
    predictors = {
        "slow": timed(clock, "slow", lambda size: 0.3 + 0.01 * size),
        "fast": timed(clock, "fast", lambda size: 0.002 * size),
    }
    speeds = parity.measure_speed(predictors, IMAGE, round_seconds=1.0)
    assert {size for _, size in clock.calls} == {1, 32}
    assert speeds["slow"].latency_milliseconds == pytest.approx(310)
    assert speeds["slow"].throughput_images_per_second == pytest.approx(32 / 0.62)
    assert speeds["fast"].latency_milliseconds == pytest.approx(2)
    assert speeds["fast"].throughput_images_per_second == pytest.approx(500)


def test_a_disturbance_in_one_round_falls_on_all_and_moves_no_median(clock):
    # For two seconds in the middle everything takes ten times as long.
    def seconds(size):
        return 0.05 * (10 if 14_410 < clock.now < 14_412 else 1)

    # Without the hours of first calls, time is what the rounds take.
    predictors = {name: timed(clock, name, seconds) for name in ("one", "other")}
    for predict in predictors.values():
        predict(np.zeros(1)), predict(np.zeros(32))
    speeds = parity.measure_speed(predictors, IMAGE, round_seconds=1.0)
    for speed in speeds.values():
        assert speed.latency_milliseconds == pytest.approx(50)
    # The models take turns.
    turns = [name for n, (name, _) in enumerate(clock.calls) if clock.calls[n - 1][0] != name]
    assert turns.count("one") >= 3


def test_a_model_that_takes_longer_than_a_round_is_timed_all_the_same(clock):
    slow = timed(clock, "slow", lambda size: 7 * size)
    speeds = parity.measure_speed({"slow": slow}, IMAGE, round_seconds=1.0)
    assert speeds["slow"].latency_milliseconds == 7000
    # For each batch size a warm-up call and a timed one, three times.
    assert len(clock.calls) == 12
