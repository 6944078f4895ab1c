"""Estimates of time and memory, against sums done by hand."""

import pytest
import synthetic_runs
from etils import epath

from keras_preact.experiments import estimate
from keras_preact.experiments.budgets import budget
from keras_preact.experiments.experiment import Experiment
from keras_preact.experiments.paper import TABLES

FIGURES = {
    **{"start_seconds": 20.0, "step_seconds": 0.5, "record_seconds": 2.0},
    **{"first_record_seconds": 5.0, "trace_evaluation_seconds": 3.0},
    **{"eval_batch_seconds": 0.25, "eval_images": 10_000, "test_images": 0},
    **{"train_images": 50_000, "memory_bytes": 2**30},
}


def make(tmp_path, name="degradation", length="short", **options):
    folder = epath.Path(tmp_path / "experiments")
    return Experiment(TABLES[name], budget(length, **options), (0, 1), folder)


def test_a_run_is_the_sum_of_its_parts(tmp_path):
    experiment = make(tmp_path, steps=1000)
    found = estimate.estimate(experiment, experiment.table.rows[0], FIGURES)
    # 1,000 steps of 128 images are 2.56 epochs: three evaluations of 79 batches.
    seconds = 20 + 1000 * 0.5 + 3 + 3 * 79 * 0.25 + 5 + 4 * 2
    assert found.seconds == pytest.approx(seconds)
    assert (found.train_steps, found.memory_bytes) == (1000, 2**30)


def test_the_test_split_is_evaluated_once(tmp_path):
    experiment = make(tmp_path, steps=1000)
    row = experiment.table.rows[0]
    split = {**FIGURES, "test_images": 1280}
    more = estimate.estimate(experiment, row, split).seconds
    assert more - estimate.estimate(experiment, row, FIGURES).seconds == pytest.approx(10 * 0.25)


def test_epochs_of_a_recipe_become_steps_of_its_images(tmp_path):
    experiment = make(tmp_path, "table5", "paper")
    figures = {**FIGURES, "train_images": 1_281_167, "eval_images": 50_000}
    found = estimate.estimate(experiment, experiment.table.rows[0], figures)
    assert found.train_steps == -(-90 * 1_281_167 // 256)


def test_rows_of_the_same_cost_are_measured_once_and_done_runs_left_out(tmp_path):
    experiment = make(tmp_path, "table1", steps=1000)
    measured, lines = [], []

    def measure(fields):
        measured.append(fields["shortcut"])
        return FIGURES

    for trial in experiment.trials():
        if trial.row.name == "identity":
            synthetic_runs.run(experiment, trial, 0.1)
    table = estimate.table(experiment, list(experiment.trials()), lines.append, 1, measure)
    # Of each kind of shortcut one; the identity is done.
    assert measured == [
        *("constant_scaling", "exclusive_gating", "shortcut_only_gating", "convolution", "dropout")
    ]
    assert lines == [
        *(f"Measuring {experiment.table.row(name).label}" for name in (
            "constant_scaling_0_1", "exclusive_gating_0", "shortcut_only_gating_0", "convolution",
            "dropout",
        ))
    ]  # fmt: skip
    rows = table.splitlines()
    assert rows[1].split() == ["identity", "2", "of", "2", "done"]
    seconds = estimate.estimate(experiment, experiment.table.rows[1], FIGURES).seconds
    assert "2 of 2 to do  1,000     0.500" in rows[2]
    assert rows[2].endswith(" 1 GiB")
    assert rows[-1] == f"All runs: {estimate.in_words(30 * seconds)} one after the other."


def test_a_measurement_that_fails_ends_with_its_last_words(tmp_path):
    with pytest.raises(estimate.MeasurementError, match="no_such_dataset"):
        estimate.measure_in_process({"dataset": "no_such_dataset", "depth": 20})
