"""Means over steps, and what ends a run."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training.reports import Reports
from keras_preact.training.step import REPORT


def row(**values):
    good = {"loss": 2.0, "correct": 0.5, "gradient_norm": 3.0, "applied": 1.0, "loss_scale": 1.0}
    return [{**good, "stop_requests": 0.0, "wait_seconds": 0.25, **values}[name] for name in REPORT]


def rows(*each):
    return tf.constant(list(each), tf.float32)


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
    reports, table = Reports(0), random_rows(7, seed=1)
    reports.add(rows(*table[:1]))
    reports.add(rows(*table[1:4]))
    means, bad = reports.collect()
    assert bad is None
    assert_means(means, table[:4])
    reports.add(rows(*table[4:]))
    assert_means(reports.collect()[0], table[4:])
    assert reports.collect() == (None, None)


def test_an_evaluation_sees_all_steps_since_the_one_before():
    reports, table = Reports(0), random_rows(9, seed=2)
    for start in (0, 3):
        reports.add(rows(*table[start : start + 3]))
        reports.collect()
    assert_means(reports.since_evaluation(), table[:6])
    reports.add(rows(*table[6:]))
    reports.collect()
    assert_means(reports.since_evaluation(), table[6:])


def test_steps_that_overflowed_count_as_skipped_and_in_no_mean():
    overflowed = row(loss=math.inf, correct=0.9, gradient_norm=math.nan, applied=0.0, loss_scale=8)
    reports = Reports(0)
    reports.add(rows(row(loss=1.0, loss_scale=16), overflowed, row(loss=2.0, loss_scale=4)))
    means, bad = reports.collect()
    assert bad is None
    assert (means.steps, means.skipped_steps) == (3, 1)
    assert (means.loss, means.accuracy, means.gradient_norm) == (1.5, 0.5, 3.0)
    # Waiting took its time whether or not the step was applied.
    assert (means.wait_seconds, means.loss_scale) == (0.75, 4.0)


def test_where_every_step_overflowed_there_is_no_mean():
    reports = Reports(0)
    reports.add(rows(*[row(loss=math.nan, applied=0.0, loss_scale=8)] * 2))
    means, bad = reports.collect()
    assert bad is None and means.skipped_steps == 2
    assert math.isnan(means.loss) and math.isnan(means.accuracy)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
@pytest.mark.parametrize(
    "reason",
    [
        # The weights have taken it in; or no lower loss scale is left to try.
        {"applied": 1.0, "loss_scale": 1.0},
        {"applied": 1.0, "loss_scale": 1024.0},
        {"applied": 0.0, "loss_scale": 1.0},
    ],
)
def test_the_first_step_of_a_hopeless_loss_is_named(loss, reason):
    reports = Reports(100)
    reports.add(rows(row(), row()))
    reports.collect()
    reports.add(rows(row()))
    reports.add(rows(row(), row(loss=loss, **reason), row(loss=math.nan)))
    means, (step, found) = reports.collect()
    # Steps 101 and 102 before, then 103, 104, and the fifth.
    assert means is None and step == 105
    assert np.array_equal(found, loss, equal_nan=True)


def test_requests_to_stop_are_known_of_all_but_the_newest_steps():
    reports = Reports(0)
    assert reports.earlier_stop_requests() == 0
    reports.add(rows(row(stop_requests=3)))
    assert reports.earlier_stop_requests() == 0
    reports.add(rows(row(), row(stop_requests=2)))
    assert reports.earlier_stop_requests() == 3
    reports.add(rows(row()))
    # The last row tells of all steps that were taken at once.
    assert reports.earlier_stop_requests() == 2
    reports.collect()
    assert reports.earlier_stop_requests() == 2


def test_waiting_returns_once_the_newest_report_is_there():
    class Report:
        asked = 0

        def numpy(self):
            self.asked += 1

    first, newest = Report(), Report()
    reports = Reports(0)
    reports.add(first)
    reports.add(newest)
    assert (first.asked, newest.asked) == (0, 0)
    reports.wait()
    assert (first.asked, newest.asked) == (0, 1)
