"""Means over steps, and steps that end a run."""

import math

import numpy as np
import pytest

from keras_preact.training.steps.step_metrics import StepMetrics
from keras_preact.training.steps.train_step import REPORT


def row(**values):
    good = {"loss": 2.0, "correct": 0.5, "gradient_norm": 3.0, "applied": 1.0, "loss_scale": 1.0}
    return [{**good, "stop_requests": 0.0, "wait_seconds": 0.25, **values}[name] for name in REPORT]


def rows(*each):
    return np.array(each, np.float32)


def random_rows(count, seed):
    generator = np.random.default_rng(seed)
    return [
        row(
            loss=generator.uniform(0, 5),
            correct=generator.uniform(),
            gradient_norm=generator.uniform(0, 9),
            loss_scale=2.0 ** generator.integers(1, 9),
            wait_seconds=generator.uniform(),
        )
        for _ in range(count)
    ]


def assert_means(means, table):
    table = np.float32(table).astype(np.float64)
    columns = dict(zip(REPORT, table.T, strict=True))
    assert means.steps == len(table)
    assert means.loss == pytest.approx(columns["loss"].mean(), rel=1e-12)
    assert means.accuracy == pytest.approx(columns["correct"].mean(), rel=1e-12)
    assert means.gradient_norm == pytest.approx(columns["gradient_norm"].mean(), rel=1e-12)
    assert means.wait_seconds == pytest.approx(columns["wait_seconds"].sum(), rel=1e-12)
    assert means.loss_scale == columns["loss_scale"][-1]


def test_means_are_over_the_steps_since_the_last_call_however_they_came():
    reports, table = StepMetrics(0), random_rows(7, seed=1)
    reports.add(rows(*table[:1]))
    reports.add(rows(*table[1:4]))
    means, bad = reports.collect()
    assert bad is None
    assert_means(means, table[:4])
    reports.add(rows(*table[4:]))
    assert_means(reports.collect()[0], table[4:])
    assert reports.collect() == (None, None)


def test_an_evaluation_sees_all_steps_since_the_one_before():
    reports, table = StepMetrics(0), random_rows(9, seed=2)
    for start in (0, 3):
        reports.add(rows(*table[start : start + 3]))
        reports.collect()
    assert_means(reports.since_evaluation(), table[:6])
    reports.add(rows(*table[6:]))
    reports.collect()
    assert_means(reports.since_evaluation(), table[6:])


def test_steps_that_overflowed_count_as_skipped_and_in_no_mean():
    overflowed = row(loss=math.inf, correct=0.9, gradient_norm=math.nan, applied=0.0, loss_scale=8)
    reports = StepMetrics(0)
    reports.add(rows(row(loss=1.0, loss_scale=16), overflowed, row(loss=2.0, loss_scale=4)))
    means, bad = reports.collect()
    assert bad is None
    assert (means.steps, means.skipped_steps) == (3, 1)
    assert (means.loss, means.accuracy, means.gradient_norm) == (1.5, 0.5, 3.0)
    # Skipped steps waited, too.
    assert (means.wait_seconds, means.loss_scale) == (0.75, 4.0)


def test_if_every_step_overflowed_the_means_are_nan():
    reports = StepMetrics(0)
    reports.add(rows(*[row(loss=math.nan, applied=0.0, loss_scale=8)] * 2))
    means, bad = reports.collect()
    assert bad is None and means.skipped_steps == 2
    assert math.isnan(means.loss) and math.isnan(means.accuracy)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("name", "words"), [("loss", "The loss was"), ("gradient_norm", "The norm of the gradient was")]
)
@pytest.mark.parametrize(
    "reason",
    [
        # The step was applied, or its loss scale is the smallest.
        {"applied": 1.0, "loss_scale": 1.0},
        {"applied": 1.0, "loss_scale": 1024.0},
        {"applied": 0.0, "loss_scale": 1.0},
    ],
)
def test_the_first_hopeless_step_is_named(value, name, words, reason):
    reports = StepMetrics(100)
    reports.add(rows(row(), row()))
    assert reports.collect()[1] is None
    reports.add(rows(row()))
    assert reports.bad is None
    # Steps 101 and 102 before, then 103, 104, and the fifth.
    reports.add(rows(row(), row(**{name: value}, **reason), row(loss=math.nan)))
    expected = f"{words} {value} at step 105"
    assert reports.bad == expected
    reports.add(rows(row()))
    assert reports.bad == expected
    assert reports.collect() == (None, expected)


def test_requests_to_stop_are_those_of_the_newest_step():
    reports = StepMetrics(0)
    assert reports.stop_requests == 0
    reports.add(rows(row(stop_requests=3)))
    assert reports.stop_requests == 3
    reports.add(rows(row(), row(stop_requests=2)))
    assert reports.stop_requests == 2
    reports.add(rows(row()))
    assert reports.stop_requests == 0


def test_a_resumed_run_has_the_means_of_one_that_was_not_interrupted():
    table = random_rows(12, seed=4)
    whole, first = StepMetrics(20), StepMetrics(20)
    for reports in (whole, first):
        reports.add(rows(*table[:3]))
        reports.collect()
        assert reports.since_evaluation().steps == 3
        reports.add(rows(*table[3:8]))
        reports.collect()
    saved = first.rows_since_evaluation()
    assert (saved.dtype, saved.shape) == (np.float64, (5, len(REPORT)))
    resumed = StepMetrics(28, saved)
    for reports in (whole, resumed):
        reports.add(rows(*table[8:]))
        assert_means(reports.collect()[0], table[8:])
    assert resumed.since_evaluation() == whole.since_evaluation()
    assert whole.rows_since_evaluation().shape == (0, len(REPORT))
    assert_means(StepMetrics(28, saved).since_evaluation(), table[3:8])
