"""The record of a run, config.json, read back and checked."""

import dataclasses

from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.support import records
from keras_preact.support.options import LARGEST
from keras_preact.training.config import TrainConfig

_WHAT = "the record of a run"
_MOST_LETTERS = 1000


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The parts of the file that are read; others are for people, or of a later version."""

    config: dict
    dataset: dict
    run: str | None = None
    history: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Args:
        config: of the run.
        dataset: what it knew of its data.
        history: an entry for each call so far, as JSON gives them.
        run: its id, with which its checkpoints are stamped; None where an earlier version made it.
    """

    config: TrainConfig
    dataset: DatasetInfo
    history: list
    run: str | None = None


def read(path: epath.PathLike) -> RunRecord:
    """The record of a run.

    Args:
        path: of its config.json.

    Raises:
        ValueError: if it is none; it names the file and the field.
        OSError: if it cannot be read.
    """
    parts = records.read_json(path, _Parts, _WHAT)
    with records.named(path, _WHAT):
        info = records.typed(parts.dataset, DatasetInfo, "dataset", exact=True)
        _check(info)
        try:
            config = TrainConfig.from_json(parts.config, "config")
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            # What no flag could be given may fail in other ways, and is quoted however long.
            raise ValueError(str(error)[:_MOST_LETTERS]) from None
        for name in ("dataset", "depth"):
            if getattr(config, name) is None:
                raise ValueError(f"config.{name} must be given. Received: null")
    return RunRecord(config, info, parts.history, parts.run)


def _check(info):
    shape, counts = info.image_shape, (info.train_count, info.eval_count)
    if not all(1 <= number <= LARGEST for number in (*shape, *counts)):
        raise ValueError(
            f"dataset.image_shape and the counts of images must be 1 to {LARGEST}. "
            f"Received: {records.short([*shape, *counts])}"
        )
    for name in ("mean", "std"):
        values = getattr(info, name)
        if len(values) != shape[-1] or min(values) < 0:
            raise ValueError(
                f"dataset.{name} must have a number, at least 0, for each of {shape[-1]} channels. "
                f"Received: {records.short(values)}"
            )
    if not info.class_names or info.resize_ratio <= 0:
        raise ValueError(
            "dataset.class_names must have a class, and dataset.margin be above 0. "
            f"Received: {len(info.class_names)} classes, margin={info.resize_ratio}"
        )
