"""The folder of a run: its paths, its lock and its record."""

import contextlib
import dataclasses
import shlex
import sys
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from keras_preact.data import DatasetInfo, splitting
from keras_preact.data.splitting import Division
from keras_preact.support import code_files
from keras_preact.support.errors import SaveError
from keras_preact.support.files import lies_there, remove, write_whole
from keras_preact.support.lock import locked
from keras_preact.support.paths import usable
from keras_preact.support.text import aligned
from keras_preact.training import own_units, run_record
from keras_preact.training.checkpoints.folder import listed, step_of, unfinished_steps
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.reporting import metrics_file

# Fields that may change when a run is resumed: they do not change what is learned.
_FREE_TO_RESUME = {
    *("run_dir", "mode", "resume", "overwrite", "checkpoint", "data_dir"),
    *("log_steps", "eval_epochs", "checkpoint_steps", "keep_checkpoints"),
    # A run that goes on begins with its own weights.
    "init_from",
    *("train_steps", "train_epochs", "log_propagation_steps"),
    # These change rounding at most.
    *("strategy", "devices", "precision", "xla", "steps_per_loop", "profile_steps"),
    *("remat", "remat_units", "unit_loops", "cluster_timeout_seconds", "deterministic"),
    *("max_runtime_minutes", "on_nan", "max_rollbacks"),
    *("early_stopping_epochs", "log_to"),
}
# Fields that are free all the same, but decide what is learned: where a run begins and ends.
_OF_LEARNING = {"init_from", "train_steps", "train_epochs", "early_stopping_epochs"}
# Fields of a single call: no part of the run.
_OF_A_CALL = {"run_dir", "mode", "resume", "overwrite", "checkpoint"}
_FREE_TO_EVALUATE = {*_FREE_TO_RESUME, "global_batch_size", "skip_bad_images"}


class RunFolder:
    """The paths of a run, and its record, config.json.

    Args:
        path: of the folder; it need not exist yet.

    Raises:
        ValueError: if the path cannot be used; see `paths.usable`.
    """

    def __init__(self, path: epath.PathLike):
        self.path = usable(path, "run_dir")
        self.config = self.path / "config.json"
        self.code = self.path / own_units.FOLDER
        self.labels = self.path / "labels.txt"
        self.split = self.path / "split.csv"
        self.metrics = self.path / "metrics.csv"
        self.test = self.path / "test.json"
        self.tracker = self.path / "tracker.json"
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
        """Locks the folder for this process, and sets `run_id`.

        Args:
            resume: whether to keep the id of the run there, if there is one.

        Raises:
            ValueError: as `lock.locked` does, or if the record of the run is damaged.
            OSError: if the storage is full or fails.
        """
        with locked(self.path) as self._is_ours:
            goes_on = resume and self.holds_a_run()
            self.run_id = (goes_on and self.recorded_id()) or uuid.uuid4().hex
            yield

    def check_ours(self) -> None:
        """Raises SaveError if the folder is no longer this process's, though it was locked."""
        if not self._is_ours():
            raise SaveError(
                f"{self} is no longer the folder of this run: it has been deleted, moved, or taken "
                "by another process. Training has stopped, and nothing more was written there."
            )

    def recorded_id(self) -> str | None:
        """Returns the run's id in its record; None in records of early versions.

        Raises:
            ValueError: if the record is damaged.
        """
        return run_record.read(self.config).run

    def check_nothing_lost(self) -> None:
        """Refuses to begin anew if a run that had saved has lost its checkpoints.

        Raises:
            ValueError: if there is no checkpoint to resume from, but metrics or other
                checkpoints show that there was; or if their folder cannot be read.
        """
        try:
            if lies_there(self.checkpoints):
                # Raises for a link to nothing, as to a disk that is not mounted.
                next(self.checkpoints.iterdir(), None)
            lost = () if listed(self.checkpoints) else self._traces()
        except OSError as error:
            lost = [f"{self.checkpoints} cannot be read: {error.strerror}"]
        if lost:
            raise ValueError(
                f"{self} has no checkpoint to resume from, but had one: {', '.join(lost)}. Put "
                "the checkpoints back (a disk may not be mounted), or give --overwrite to start "
                "anew, or another --run_dir. The best one, if it is left, can be evaluated and "
                "exported with --checkpoint=best."
            )

    def _traces(self):
        """Describes the signs of earlier checkpoints."""
        # A run killed in its first save has written a row, and perhaps a best checkpoint.
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
        """Refuses a folder that a run of this configuration may not write to.

        Raises:
            ValueError: if the folder holds a run and neither resume nor overwrite is
                set, a run of another configuration to resume, or something else.
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
        # Files that begin with a dot are left by killed processes or the system.
        elif any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise ValueError(
                f"run_dir must be a new or empty folder, or that of a run. {self} holds "
                "something else (there is no config.json)."
            )

    def set_aside(self) -> None:
        """Moves the files of the run, and no others, to the hidden folder `aside`.

        If another run lies there already, the run in this folder was never evaluated: it is
        deleted in its place.
        """
        # The record is moved last: without it, the move was not completed.
        never_evaluated = (self.aside / self.config.name).exists()
        self.aside.mkdir(parents=True, exist_ok=True)
        figures = (self.metrics, self.propagation, self.curves, self.test, self.tracker)
        own = (
            self.checkpoints,
            self.tensorboard,
            self.code,
            *figures,
            self.labels,
            self.split,
            self.config,
        )
        for path in filter(lies_there, own):
            remove(path) if never_evaluated else path.rename(self.aside / path.name)

    def kept_aside(self) -> str:
        """Tells the user until when the run set aside is kept, and how to get it back."""
        there = shlex.quote(str(self.aside))
        return (
            "The run that was here before is kept until this one has been evaluated. To get it "
            f"back: mv {there} NEW_RUN_DIR"
        )

    def forget_aside(self) -> None:
        """Deletes the run that was set aside."""
        remove(self.aside)

    def class_weights(self) -> dict[str, float] | None:
        """Returns the class weights in the record of the run; None without a run or weights.

        Raises:
            ValueError: if the record is damaged.
        """
        return run_record.read(self.config).class_weights if self.holds_a_run() else None

    def begin(
        self,
        config: TrainConfig,
        info: DatasetInfo,
        plan: ComputePlan,
        step: int = 0,
        class_weights: dict[str, float] | None = None,
    ) -> None:
        """Writes the record of the run and its labels; the record keeps the history of calls.

        Args:
            config: configuration of the run.
            info: description of its data.
            plan: compute plan.
            step: number of steps taken before this call.
            class_weights: weight of each class by name; None where classes are not weighted.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        history, changes = [], []
        if self.holds_a_run():
            history = run_record.read(self.config).history
            changes = self._differences(config, _OF_A_CALL)
        code = own_units.of(config)
        if not history:
            for name, each in code.items():
                code_files.write_copy(each, self.code / name)
        code = {name: own_units.record(each) for name, each in code.items()}
        call = {
            "step": step,
            "command": sys.argv,
            "changes": {name: [was, now] for name, was, now in changes},
        }
        history, config = [*history, call], config.resolved()
        record = run_record.RunRecord(config, info, history, self.run_id, class_weights, code)
        run_record.write(self.config, record, plan)
        write_whole(self.labels, "".join(f"{name}\n" for name in info.class_names).encode())

    def keep_start_seconds(self, seconds: Mapping[str, float], plan: ComputePlan) -> None:
        """Adds the seconds of the parts of this call's start to its entry in the history."""
        record = run_record.read(self.config)
        record.history[-1]["start_seconds"] = {k: round(v, 3) for k, v in seconds.items()}
        run_record.write(self.config, record, plan)

    def keep_division(self, division: Division | None) -> None:
        """Writes the split of each image, unless the data bring it or the run has it already."""
        if division is not None and not self.split.exists():
            write_whole(self.split, division.to_csv())

    def check_same_division(self, division: Division | None) -> None:
        """Raises ValueError if images are not in the splits that they had when the run began.

        Args:
            division: of the images as they are now; None for a data set that brings its splits.
        """
        if not self.split.exists():
            return
        differences = splitting.differences(
            self.split.read_bytes(), division.to_csv() if division else b""
        )
        if differences:
            raise ValueError(
                f"A run that goes on needs the images that it began with, in the splits of "
                f"{self.split}. Put them back, or begin another run. These differ:\n"
                + aligned(("path", "in the run", "now"), differences)
            )

    def read(self) -> tuple[TrainConfig, DatasetInfo]:
        """Reads the configuration of the run and the description of its data.

        Raises:
            ValueError: if the folder holds no run, or its record is damaged.
        """
        if not self.holds_a_run():
            raise ValueError(f"run_dir must be the folder of a run. There is no {self.config}")
        record = run_record.read(self.config)
        return record.config, record.dataset

    def check_code(self) -> None:
        """Raises ValueError if the run's copy of the user's code is missing or has changed."""
        own_units.check_copies(self.code, run_record.read(self.config).code)

    def with_own_code(self, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
        """Takes the run's copy of the user's code in a configuration; see `own_units.of_run`."""
        record = run_record.read(self.config)
        own_units.check_copies(self.code, record.code)
        return own_units.of_run(config, record.config, self.code, record.code)

    def check_evaluable(self, config: TrainConfig) -> None:
        """Raises ValueError if the run in this folder has another configuration."""
        self._check_same(config, _FREE_TO_EVALUATE)

    def _check_same(self, config, free):
        if self.read()[0].scales_with_training:
            # The schedule depends on the length of the run.
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
        """Lists (name, value in the run, value now) for fields that differ, except `free` ones."""
        # An earlier version recorded the values that stand for None today.
        old, config = self.read()[0].resolved(), config.resolved()
        values = {
            field.name: (getattr(old, field.name), getattr(config, field.name))
            for field in dataclasses.fields(config)
            if field.name not in free
        }
        return [(name, was, now) for name, (was, now) in values.items() if was != now]


def configure(given: dict) -> TrainConfig:
    """Makes a configuration from flags, on top of the run's own when resuming or evaluating.

    Args:
        given: fields that the user set.

    Raises:
        ValueError: as `TrainConfig` does, or if there is no run to evaluate.
    """
    config = TrainConfig(**given)
    if config.mode == "evaluate" and not config.init_from:
        config.require("run_dir")
    folder = RunFolder(config.folder)
    evaluates_run = config.mode == "evaluate" and config.run_dir
    if evaluates_run or (config.resume and folder.holds_a_run()):
        of_this_call = {"mode": "train", "resume": False, "overwrite": False}
        return folder.read()[0].updated(**{**of_this_call, **given})
    return config


def learned(config: TrainConfig) -> dict[str, Any]:
    """Returns the fields that change what is learned, resolved, as JSON has them.

    Two runs on the same images learn the same, but for rounding, where these are equal. Code of
    the user's stands as NAME@SHA256, wherever it lies.
    """
    config = config.resolved()
    return {
        field.name: _learned(field.name, getattr(config, field.name))
        for field in dataclasses.fields(config)
        if field.name not in _FREE_TO_RESUME or field.name in _OF_LEARNING
    }


def _learned(name, value):
    if name in own_units.FIELDS:
        return own_units.identity(value)
    return list(value) if isinstance(value, tuple) else value


def check_same_data(info: DatasetInfo, recorded: DatasetInfo, trained_on: bool = False) -> None:
    """Raises ValueError if data are not those of a run.

    Args:
        info: description of the data.
        recorded: description in the record of the run.
        trained_on: whether training will continue: the data order depends on the counts.
    """
    names = ["class_names", "image_shape", "multi_label"]
    if trained_on:
        names += ["train_count", "eval_count"]
        # Earlier versions recorded no test images.
        names += ["test_count"] if recorded.test_count else []
    differing = [
        (name, getattr(recorded, name), getattr(info, name))
        for name in names
        if getattr(recorded, name) != getattr(info, name)
    ]
    # Another version of a decoder may round otherwise.
    for name in ("mean", "std") if trained_on and not differing else ():
        old, new = getattr(recorded, name), getattr(info, name)
        if not np.allclose(old, new, rtol=1e-3):
            differing.append((name, old, new))
    if differing:
        raise ValueError(
            "The data must be those of the run. These differ:\n"
            + aligned(("", "in the run", "now"), differing)
        )
