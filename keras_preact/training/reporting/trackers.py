"""Hands configuration and metrics to wandb or mlflow; no failure of theirs ends a run."""

import importlib.util
import json
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from etils import epath

from keras_preact.support import records
from keras_preact.support.console import say
from keras_preact.support.files import write_whole

PROJECT = "keras_preact"
# How long the end of a run waits for metrics that are still on their way.
PATIENCE_SECONDS = 45
# Metrics that wait for a server which does not answer.
_MOST_WAITING = 10_000
_WANDB_SECONDS = 20
# mlflow takes no more at a time.
_MOST_PARAMS = 100
_MOST_LETTERS = 500


class Tracker(Protocol):
    """A package that keeps the metrics of runs."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps metrics after a step."""

    def summary(self, step: int, values: Mapping[str, float]) -> None:
        """Keeps results of the end, after a step."""

    def close(self, complete: bool) -> None:
        """Ends the session; complete tells whether the run has reached its end."""


def check(name: str | None) -> None:
    """Raises ValueError if the package is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ValueError(
            f"log_to={name} needs the package {name}: pip install {name}. "
            f"Received: log_to={name!r}, and no such package"
        )


def begin(
    name: str | None, file: epath.PathLike, run: str, title: str, config: Mapping[str, Any]
) -> "Tracker":
    """Begins the session of a run, or goes on with it.

    Args:
        name: "wandb" or "mlflow"; None for none.
        file: tracker.json of the run folder, which keeps the id of the run at the package.
        run: id of the run.
        title: for people.
        config: of the run, as JSON.
    """
    if name is None:
        return _Nothing()
    make = {"wandb": _Wandb, "mlflow": _Mlflow}[name]
    return Safe(name, lambda: make(epath.Path(file), run, title, dict(config)))


class _Nothing:
    def log(self, step, values):
        pass

    def summary(self, step, values):
        pass

    def close(self, complete):
        pass


class Safe:
    """Calls a tracker from a thread of its own; says the first failure, and goes on."""

    def __init__(self, name: str, make: Callable[[], Tracker]):
        self._name, self._make, self._failed = name, make, False
        self._calls: queue.Queue = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def log(self, step, values):
        self._put(lambda tracker: tracker.log(step, values))

    def summary(self, step, values):
        self._put(lambda tracker: tracker.summary(step, values))

    def close(self, complete):
        self._put(lambda tracker: tracker.close(complete))
        self._put(None)
        # A server that has not answered before will hardly do so now.
        self._thread.join(5 if self._failed else PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._fail(f"it does not answer; up to {self._calls.qsize():,} calls are lost")

    def _put(self, call):
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._fail("it is too slow, and metrics are lost")

    def _work(self):
        tracker = None
        while (call := self._calls.get()) is not None:
            try:
                tracker = tracker or self._make()
                call(tracker)
            except Exception as error:
                self._fail(f"{type(error).__name__}: {error}")

    def _fail(self, why):
        if not self._failed:
            self._failed = True
            short = " ".join(str(why).split())[:_MOST_LETTERS]
            say(f"Could not log to {self._name}: {short}. Training goes on.")


class _Wandb:
    """A run of Weights & Biases, whose id is that of our run; offline if it cannot be reached."""

    def __init__(self, file, run, title, config):
        import wandb

        options = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "name": title,
            "id": run,
            "resume": "allow",
            "dir": os.fspath(file.parent),
            "config": config,
            "allow_val_change": True,
        }
        # Its hold on our output would outlive the run.
        settings = {"console": "off", "init_timeout": _WANDB_SECONDS, "disable_git": True}
        try:
            mode = None if _is_logged_in(wandb) else "offline"
            self._run = wandb.init(**options, settings=wandb.Settings(**settings, mode=mode))
        except Exception as error:
            say(f"wandb cannot be reached ({type(error).__name__}): the run is logged offline.")
            # Without an end to its service, the id would be in use.
            wandb.teardown()
            settings["mode"] = "offline"
            self._run = wandb.init(**options, settings=wandb.Settings(**settings))
        _write(file, "wandb", run)

    def log(self, step, values):
        # Steps before the last one, which a resumed run takes again, are dropped by wandb itself.
        self._run.log(dict(values), step=step)

    def summary(self, step, values):
        self._run.summary.update(dict(values))

    def close(self, complete):
        self._run.finish(exit_code=0 if complete else 1)


def _is_logged_in(wandb):
    """Whether wandb may go online; it would ask for a key otherwise, and wait for an answer."""
    if os.environ.get("WANDB_MODE"):
        return True  # it reads that itself
    try:
        is_logged_in = wandb.login(prompt=False)
    except TypeError:  # of an earlier version, which cannot be asked
        return True
    if not is_logged_in:
        say("No account is logged in at wandb (wandb login): the run is logged offline.")
    return is_logged_in


class _Mlflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI or where mlflow keeps its runs by default."""

    def __init__(self, file, run, title, config):
        # A server that is away must not hold back the end of a run for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        if os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("file:", "/", ".")):
            # Who names a folder has decided; mlflow would refuse it since version 3.7.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient()
        known = _read(file, "mlflow")
        found = self._found(known) if known else None
        self._id = known if found else self._create(title, run)
        _write(file, "mlflow", self._id)
        # A resumed run takes some steps again.
        names = found.data.metrics if found else ()
        self._last = {
            name: max(each.step for each in self._client.get_metric_history(self._id, name))
            for name in names
        }
        # mlflow refuses to change a parameter.
        before = found.data.params if found else {}
        params = [Param(name, _text(value)) for name, value in config.items() if name not in before]
        for begin in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self._id, params=params[begin : begin + _MOST_PARAMS])

    def _found(self, known):
        """The run of an earlier session, running again; None if mlflow has lost it."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(known)
            self._client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            say(f"mlflow has no run {known} any more: it gets a new one.")
            return None
        return run

    def _create(self, title, run):
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        key = experiment.experiment_id if experiment else self._client.create_experiment(name)
        tags = {"keras_preact.run": run}
        return self._client.create_run(key, run_name=title, tags=tags).info.run_id

    def log(self, step, values):
        now = int(1000 * time.time())
        metrics = [
            self._metric(name, float(value), now, step)
            for name, value in values.items()
            if step > self._last.get(name, -1)
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def summary(self, step, values):
        self.log(step, values)

    def close(self, complete):
        self._client.set_terminated(self._id, "FINISHED" if complete else "KILLED")


def numbers(prefix: str, values: Mapping[str, float | None]) -> dict[str, float]:
    """Returns the finite values under a prefix, as in eval/loss."""
    return {
        f"{prefix}/{name}": float(value)
        for name, value in values.items()
        if value is not None and math.isfinite(value)
    }


def _text(value):
    return value if isinstance(value, str) else json.dumps(value)


def _read(file, package):
    """The id in tracker.json; None if there is none, or it is of another package."""
    if not file.exists():
        return None
    values = records.read_json(file, dict, "the id of a run at wandb or mlflow")
    return values.get(package)


def _write(file, package, run):
    values = records.read_json(file, dict, "ids of runs") if file.exists() else {}
    if values.get(package) != run:
        write_whole(file, f"{json.dumps({**values, package: run}, indent=2)}\n".encode())
