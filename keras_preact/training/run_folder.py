"""The folder of a run: what lies where, and who may write there."""

import contextlib
import dataclasses
import importlib.metadata
import json
import platform
import shlex
import sys
import uuid
from collections.abc import Iterator

import numpy as np
from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.support.errors import SaveError
from keras_preact.support.files import lies_there, remove, write_whole
from keras_preact.support.lock import locked
from keras_preact.support.paths import usable
from keras_preact.support.text import aligned
from keras_preact.training import run_record
from keras_preact.training.checkpoints.folder import listed, step_of, unfinished_steps
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.reporting import metrics_file
from keras_preact.version import __version__

# Fields that may differ when a run is resumed: they change nothing that has been learned.
_FREE_TO_RESUME = {
    *("run_dir", "mode", "resume", "overwrite", "checkpoint", "data_dir"),
    *("log_steps", "eval_epochs", "checkpoint_steps", "keep_checkpoints"),
    *("train_steps", "train_epochs", "log_propagation_steps"),
    # Where and how it is computed, to the accuracy of the arithmetic.
    *("strategy", "devices", "precision", "xla", "steps_per_loop", "profile_steps"),
    *("cluster_timeout_seconds", "deterministic"),
    *("max_runtime_minutes", "on_nan", "max_rollbacks"),
}
# Fields that say what to do in one call, not what the run is.
_OF_A_CALL = {"run_dir", "mode", "resume", "overwrite", "checkpoint"}
_FREE_TO_EVALUATE = {*_FREE_TO_RESUME, "global_batch_size", "skip_bad_images"}


class RunFolder:
    """Paths of a run and its record, config.json.

    Args:
        path: the folder; it need not exist yet.

    Raises:
        ValueError: if no run can live there; see `paths.usable`.
    """

    def __init__(self, path: epath.PathLike):
        self.path = usable(path, "run_dir")
        self.config = self.path / "config.json"
        self.labels = self.path / "labels.txt"
        self.metrics = self.path / "metrics.csv"
        self.propagation = self.path / "propagation.csv"
        self.curves = self.path / "curves.png"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.aside = self.path / ".overwritten"
        self.run_id: str | None = None
        self._is_ours = lambda: True

    def __str__(self) -> str:
        return str(self.path)

    def holds_a_run(self) -> bool:
        return self.config.exists()

    @contextlib.contextmanager
    def locked(self, resume: bool = False) -> Iterator[None]:
        """A context in which the folder is this process's alone, and `run_id` that of its run.

        Args:
            resume: whether the run there, if there is one, goes on; else a new one begins.

        Raises:
            ValueError: as `lock.locked` does, or if the record of the run cannot be read.
            OSError: if the storage is full or fails.
        """
        with locked(self.path) as self._is_ours:
            goes_on = resume and self.holds_a_run()
            self.run_id = (goes_on and self.recorded_id()) or uuid.uuid4().hex
            yield

    def check_ours(self) -> None:
        """Raises SaveError where the folder, once locked, no longer is this process's."""
        if not self._is_ours():
            raise SaveError(
                f"{self} is no longer the folder of this run: it has been deleted, moved, or taken "
                "by another process. Training has stopped, and nothing more was written there."
            )

    def recorded_id(self) -> str | None:
        """The id with which the checkpoints of the run are stamped; None of an earlier version's.

        Raises:
            ValueError: if the record cannot be read.
        """
        return run_record.read(self.config).run

    def check_nothing_lost(self) -> None:
        """Refuses to begin anew where checkpoints are missing from a run that had saved.

        Raises:
            ValueError: if there is none to go on from, and metrics, a best or a damaged
                checkpoint tell of steps taken; or if the folder of checkpoints cannot be read.
        """
        try:
            if lies_there(self.checkpoints):
                # Also of a link to nothing, as to a disk that is not mounted.
                next(self.checkpoints.iterdir(), None)
            lost = () if listed(self.checkpoints) else self._traces()
        except OSError as error:
            lost = [f"{self.checkpoints} cannot be read: {error.strerror}"]
        if lost:
            raise ValueError(
                f"{self} has no checkpoint to go on from, and has had one: {', '.join(lost)}. Put "
                "the checkpoints back (a disk may not be mounted), or give --overwrite to start "
                "anew, or another --run_dir. The best one, where it is left, can be evaluated and "
                "exported with --checkpoint=best."
            )

    def _traces(self):
        """The signs of earlier checkpoints, in words."""
        # A run that was killed in its first save had written its row, and perhaps its best.
        begun = unfinished_steps(self.checkpoints)
        rows = {row.step for row in metrics_file.read(self.metrics)} - begun
        bests = set(map(step_of, listed(self.checkpoints / "best"))) - begun
        traces = [f"{self.metrics} has the evaluation after step {max(rows):,}"] if rows else []
        traces += [f"{self.checkpoints / 'best'} has that of step {step:,}" for step in bests]
        if (damaged := self.checkpoints / "damaged").exists():
            traces.append(f"there is {damaged}")
        if self.aside.exists() and not (self.aside / self.config.name).exists():
            traces.append(f"{self.aside} has parts of it, as --overwrite was killed")
        return traces

    def check_free(self, config: TrainConfig) -> None:
        """Refuses a folder that holds another's work, before anything is built.

        Raises:
            ValueError: if the folder holds a run and neither resume nor overwrite is
                set, holds something else, or holds a run of another configuration.
        """
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"run_dir must be a folder. Received: {self}, which is a file")
        if self.holds_a_run():
            if config.resume:
                self._check_same(config, _FREE_TO_RESUME)
            elif not config.overwrite:
                raise ValueError(
                    f"{self} holds a run already. Give --resume to continue it, --overwrite to "
                    "replace it, or another --run_dir."
                )
        # Names with a dot are what a killed process, ours or the system's, leaves behind.
        elif any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise ValueError(
                f"run_dir must be a new or empty folder, or that of a run. {self} holds "
                "something else (there is no config.json)."
            )

    def set_aside(self) -> None:
        """Moves what a run wrote, and nothing else, to the hidden folder `aside`.

        Where one lies there already, the run in the folder has never been evaluated: it is
        deleted, and the earlier one goes on waiting.
        """
        # The record goes last: without it, a process was killed while it moved the others.
        never_evaluated = (self.aside / self.config.name).exists()
        self.aside.mkdir(parents=True, exist_ok=True)
        figures = (self.metrics, self.propagation, self.curves)
        own = (self.checkpoints, self.tensorboard, *figures, self.labels, self.config)
        for path in filter(lies_there, own):
            remove(path) if never_evaluated else path.rename(self.aside / path.name)

    def kept_aside(self) -> str:
        """Says until when the run that was set aside is kept, and how to have it back."""
        there = shlex.quote(str(self.aside))
        return (
            "The run that was here before is kept until this one has been evaluated. To have it "
            f"back: mv {there} NEW_RUN_DIR"
        )

    def forget_aside(self) -> None:
        """Deletes what was set aside, now that the new run has something to show."""
        remove(self.aside)

    def begin(
        self, config: TrainConfig, info: DatasetInfo, plan: ComputePlan, step: int = 0
    ) -> None:
        """Writes what is needed to repeat, evaluate and export the run.

        Args:
            config: of the run.
            info: of its data.
            plan: how it computes.
            step: steps taken so far; what has changed since it was begun last is kept too.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        history, changes = [], []
        if self.holds_a_run():
            history = run_record.read(self.config).history
            changes = self._differences(config, _OF_A_CALL)
        record = {
            "run": self.run_id,
            "config": config.to_json(),
            "dataset": info.to_json(),
            "decision": dataclasses.asdict(plan),
            "versions": _versions(),
            "history": [
                *history,
                {
                    "step": step,
                    "command": sys.argv,
                    "changes": {name: [was, now] for name, was, now in changes},
                },
            ],
        }
        write_whole(self.config, f"{json.dumps(record, indent=2)}\n".encode())
        write_whole(self.labels, "".join(f"{name}\n" for name in info.class_names).encode())

    def read(self) -> tuple[TrainConfig, DatasetInfo]:
        """The configuration of the run and what it knew of its data.

        Raises:
            ValueError: if the folder holds no run, or one that cannot be read.
        """
        if not self.holds_a_run():
            raise ValueError(f"run_dir must be the folder of a run. There is no {self.config}")
        record = run_record.read(self.config)
        return record.config, record.dataset

    def check_evaluable(self, config: TrainConfig) -> None:
        """Raises ValueError if config is not that of the run in this folder."""
        self._check_same(config, _FREE_TO_EVALUATE)

    def _check_same(self, config, free):
        if self.read()[0].scale_schedule:
            # The length of the run then is part of its schedule.
            free = free - {"train_steps", "train_epochs"}
        differing = self._differences(config, free)
        if differing:
            raise ValueError(
                f"{self} is a run of another configuration. These flags change what is learned, "
                "and must be as they were:\n"
                + aligned(("flag", "in the run", "now"), differing)
                + "\nLeave them out, or give another --run_dir."
            )

    def _differences(self, config, free):
        """(name, value in the run, value now) of the fields that differ, but for some."""
        old, _ = self.read()
        values = {
            field.name: (getattr(old, field.name), getattr(config, field.name))
            for field in dataclasses.fields(config)
            if field.name not in free
        }
        return [(name, was, now) for name, (was, now) in values.items() if was != now]


def configure(given: dict) -> TrainConfig:
    """A configuration from flags; a run's own where one is resumed or evaluated.

    Args:
        given: the fields that the user set.

    Raises:
        ValueError: as `TrainConfig` does, or if there is no run to evaluate.
    """
    config = TrainConfig(**given)
    if config.mode == "evaluate":
        config.require("run_dir")
    folder = RunFolder(config.folder)
    if config.mode == "evaluate" or (config.resume and folder.holds_a_run()):
        of_this_call = {"mode": "train", "resume": False, "overwrite": False}
        return folder.read()[0].updated(**{**of_this_call, **given})
    return config


def check_same_data(info: DatasetInfo, recorded: DatasetInfo, trained_on: bool = False) -> None:
    """Raises ValueError where data are not those of a run.

    Args:
        info: of the data.
        recorded: of the data that the run was begun on.
        trained_on: whether the run will be continued on them: their order depends on
            their number.
    """
    names = ["class_names", "image_shape"]
    if trained_on:
        names += ["train_count", "eval_count"]
    differing = [
        (name, getattr(recorded, name), getattr(info, name))
        for name in names
        if getattr(recorded, name) != getattr(info, name)
    ]
    # Decoders of another version may round otherwise.
    for name in ("mean", "std") if trained_on and not differing else ():
        old, new = getattr(recorded, name), getattr(info, name)
        if not np.allclose(old, new, rtol=1e-3):
            differing.append((name, old, new))
    if differing:
        raise ValueError(
            "The data must be those of the run. These differ:\n"
            + aligned(("", "in the run", "now"), differing)
        )


# What decides on a run's numbers and pictures.
_PACKAGES = (
    *("tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn"),
    *("absl-py", "etils", "matplotlib", "tensorboard", "tqdm"),
)


def _versions():
    installed = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"keras_preact": __version__, "python": platform.python_version(), **installed}
