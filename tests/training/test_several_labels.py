"""Runs on images of several labels, from a CSV file to every file of the run."""

import csv

import numpy as np
import pytest
from small_labels import of_csv, write_csv
from small_runs import events

from keras_preact.training import run
from keras_preact.training.reporting import metrics_file, propagation_file


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The configuration of a finished run, and its last evaluation."""
    folder = tmp_path_factory.mktemp("several")
    table = write_csv(folder, weighted=True)
    options = {"class_weights": "auto", "log_propagation_steps": 4, "learning_rate": 0.2}
    config = of_csv(table, folder / "run", train_steps=20, **options)
    return config, folder / "run", run(config)


def test_such_a_run_learns_and_reports_its_own_figures(trained):
    _, folder, evaluation = trained
    assert evaluation.count == 12
    rows = metrics_file.read(folder / "metrics.csv")
    assert [row.step for row in rows] == list(range(2, 21, 2))
    last = rows[-1]
    assert last.scores == pytest.approx(evaluation.scores, abs=1e-5)
    assert last.eval_mean_average_precision > 0.9
    with (folder / "metrics.csv").open() as file:
        head = next(csv.reader(file))
    assert head[-3:] == ["eval_macro_f1", "eval_micro_f1", "eval_mean_average_precision"]
    shown = events(folder, "eval").Tags()["tensors"]
    assert {"mean_average_precision", "macro_f1", "micro_f1", "loss", "classes"} <= set(shown)
    assert "confusion" not in shown
    assert np.isfinite(propagation_file.read(folder / "propagation.csv").gradient_norm).any()


def test_the_best_checkpoint_has_the_best_mean_average_precision(trained):
    _, folder, _ = trained
    rows = metrics_file.read(folder / "metrics.csv")
    best = max(rows, key=lambda row: (row.eval_mean_average_precision, -row.step))
    [path] = (folder / "checkpoints" / "best").glob("step-*")
    assert path.name == f"step-{best.step}"


def test_evaluating_the_run_gives_what_training_reported(trained, capsys):
    config, _, evaluation = trained
    again = run(config.updated(mode="evaluate", global_batch_size=5))
    assert again.scores == pytest.approx(evaluation.scores, rel=1e-4)
    assert "mean average precision" in capsys.readouterr().out


def test_cross_entropy_is_refused_before_anything_is_written(trained, tmp_path):
    config, _, _ = trained
    for changes, words in (
        ({"loss": "cross_entropy"}, "loss must be binary_cross_entropy"),
        ({"class_weights": "/no/such/file.json"}, "class_weights must be auto, or a file"),
    ):
        with pytest.raises(ValueError, match=words):
            run(config.updated(run_dir=str(tmp_path / "run"), **changes))
        assert not (tmp_path / "run" / "config.json").exists()
