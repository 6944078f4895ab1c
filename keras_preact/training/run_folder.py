"""The folder of a run: what lies where, and who may write there."""

import dataclasses
import importlib.metadata
import json
import platform
import sys

import numpy as np
from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.training import run_record
from keras_preact.training.config import TrainConfig
from keras_preact.training.decision import Decision
from keras_preact.training.files import write_whole
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
    """

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path).expanduser()
        self.config = self.path / "config.json"
        self.labels = self.path / "labels.txt"
        self.metrics = self.path / "metrics.csv"
        self.propagation = self.path / "propagation.csv"
        self.curves = self.path / "curves.png"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self._aside = self.path / ".overwritten"

    def __str__(self) -> str:
        return str(self.path)

    def holds_a_run(self) -> bool:
        return self.config.exists()

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
                    "delete it, or another --run_dir."
                )
        # Names with a dot are what a killed process, ours or the system's, leaves behind.
        elif any(not path.name.startswith(".") for path in self.path.iterdir()):
            raise ValueError(
                f"run_dir must be a new or empty folder, or that of a run. {self} holds "
                "something else (there is no config.json)."
            )

    def set_aside(self) -> None:
        """Moves what a run wrote, and nothing else, to a hidden folder, for `forget_aside`.

        Where one lies there already, the run in the folder has never saved: it is
        deleted, and the earlier one goes on waiting.
        """
        never_saved = self._aside.exists()
        self._aside.mkdir(parents=True, exist_ok=True)
        figures = (self.metrics, self.propagation, self.curves)
        own = (self.checkpoints, self.tensorboard, *figures, self.labels, self.config)
        for path in filter(lambda path: path.exists(), own):
            if not never_saved:
                path.rename(self._aside / path.name)
            elif path.is_dir():
                path.rmtree()
            else:
                path.unlink()

    def forget_aside(self) -> None:
        """Deletes what was set aside, now that the new run has something to show."""
        if self._aside.exists():
            self._aside.rmtree()

    def begin(
        self, config: TrainConfig, info: DatasetInfo, decision: Decision, step: int = 0
    ) -> None:
        """Writes what is needed to repeat, evaluate and export the run.

        Args:
            config: of the run.
            info: of its data.
            decision: how it computes.
            step: steps taken so far; what has changed since it was begun last is kept too.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        history, changes = [], []
        if self.holds_a_run():
            history = run_record.read(self.config).history
            changes = self._differences(config, _OF_A_CALL)
        record = {
            "config": config.to_json(),
            "dataset": dataclasses.asdict(info),
            "decision": dataclasses.asdict(decision),
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
                + _table(("flag", "in the run", "now"), differing)
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


def _table(head, rows):
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


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
            + _table(("", "in the run", "now"), differing)
        )


# What decides on a run's numbers and pictures.
_PACKAGES = (
    *("tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn"),
    *("absl-py", "etils", "matplotlib", "tensorboard", "tqdm"),
)


def _versions():
    installed = {package: importlib.metadata.version(package) for package in _PACKAGES}
    return {"keras_preact": __version__, "python": platform.python_version(), **installed}
