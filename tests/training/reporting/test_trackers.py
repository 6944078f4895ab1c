"""Metrics handed to other packages: the packages themselves where they are installed."""

import importlib.util
import json
import time

import pytest
from small_runs import AtStep, small

from keras_preact.training import run
from keras_preact.training.reporting import trackers

IS_INSTALLED = {name: importlib.util.find_spec(name) is not None for name in ("wandb", "mlflow")}


def needs(name):
    return pytest.mark.skipif(not IS_INSTALLED[name], reason=f"{name} is not installed here")


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named_with_its_installation(name, monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"needs the package {name}: pip install {name}"):
        run(small(tmp_path / "run", log_to=name))
    assert not (tmp_path / "run").exists()


class Recorder:
    """A tracker that records its calls, and may fail or dawdle."""

    def __init__(self, harm=lambda step: None):
        self.calls, self._harm = [], harm

    def log(self, step, values):
        self._harm(step)
        self.calls.append((step, dict(values)))

    def summary(self, step, values):
        self.calls.append((step, dict(values)))

    def close(self, complete):
        self.calls.append(complete)


def test_calls_arrive_in_their_order():
    recorder = Recorder()
    tracker = trackers.Safe("some", lambda: recorder)
    for step in range(5):
        tracker.log(step, {"loss": step})
    tracker.summary(9, {"best": 1.0})
    tracker.close(True)
    assert recorder.calls == [
        *((step, {"loss": step}) for step in range(5)),
        (9, {"best": 1.0}),
        True,
    ]


def test_failures_are_said_once_and_the_rest_arrives(capsys):
    def harm(step):
        if step in (1, 2):
            raise OSError(f"no network at {step}\nat all")

    recorder = Recorder(harm)
    tracker = trackers.Safe("some", lambda: recorder)
    for step in range(4):
        tracker.log(step, {})
    tracker.close(False)
    assert [call[0] for call in recorder.calls[:-1]] == [0, 3] and recorder.calls[-1] is False
    assert capsys.readouterr().out.splitlines() == [
        "Could not log to some: OSError: no network at 1 at all. Training goes on."
    ]


def test_a_package_that_cannot_begin_is_tried_again(capsys):
    recorder, failures = Recorder(), iter([OSError("away"), OSError("away")])

    def make():
        for failure in failures:
            raise failure
        return recorder

    tracker = trackers.Safe("some", make)
    for step in range(4):
        tracker.log(step, {})
    tracker.close(True)
    assert [call[0] for call in recorder.calls[:-1]] == [2, 3]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_a_server_that_does_not_answer_holds_back_neither_steps_nor_the_end(monkeypatch, capsys):
    monkeypatch.setattr(trackers, "PATIENCE_SECONDS", 0.2)
    tracker = trackers.Safe("some", lambda: Recorder(lambda step: time.sleep(5)))
    begin = time.monotonic()
    for step in range(20):
        tracker.log(step, {})
    tracker.close(True)
    assert time.monotonic() - begin < 2
    assert "it does not answer" in capsys.readouterr().out


def test_numbers_that_are_none_or_not_finite_are_left_out():
    values = {"loss": 1, "top5_accuracy": None, "accuracy": float("nan"), "norm": float("inf")}
    assert trackers.numbers("eval", values) == {"eval/loss": 1.0}


def run_in_two_sessions(folder, name):
    """A run that ends in an error and is resumed."""

    def fail():
        raise ZeroDivisionError

    # Evaluations after steps 3 and 6.
    options = {"log_to": name, "global_batch_size": 480, "checkpoint_steps": 3}
    with pytest.raises(ZeroDivisionError):
        run(small(folder, **options), actions=[AtStep(4, fail)])
    first = json.loads((folder / "tracker.json").read_text())
    run(small(folder, resume=True, **options))
    assert json.loads((folder / "tracker.json").read_text()) == first
    return first[name]


@needs("mlflow")
@pytest.mark.usefixtures("without_pictures")
def test_mlflow_keeps_a_run_over_its_sessions(tmp_path, monkeypatch):
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    key = run_in_two_sessions(tmp_path / "run", "mlflow")
    client = MlflowClient()
    kept = client.get_run(key)
    assert kept.info.status == "FINISHED" and kept.info.run_name == "run"
    assert kept.data.params["depth"] == "8" and kept.data.params["dataset"] == "digits"
    # Step 4 was taken twice, and is kept once.
    for name, steps in (("train/loss", [2, 3, 4, 6]), ("eval/accuracy", [3, 6])):
        assert [each.step for each in client.get_metric_history(key, name)] == steps
    accuracies = client.get_metric_history(key, "eval/accuracy")
    assert kept.data.metrics["best/accuracy"] == max(each.value for each in accuracies)
    [experiment] = [e for e in client.search_experiments() if e.name != "Default"]
    assert len(client.search_runs([experiment.experiment_id])) == 1


@needs("mlflow")
@pytest.mark.usefixtures("without_pictures")
def test_a_server_of_mlflow_that_is_away_ends_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    run(small(tmp_path / "run", log_to="mlflow", train_steps=2))
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.startswith("Could not log to mlflow")]) == 1


@needs("wandb")
@pytest.mark.usefixtures("without_pictures")
def test_wandb_logs_offline_under_the_id_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    key = run_in_two_sessions(tmp_path / "run", "wandb")
    sessions = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert sessions and all(path.name.endswith(key) for path in sessions)
    assert any((path / f"run-{key}.wandb").stat().st_size > 1000 for path in sessions)
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["run"] == key
