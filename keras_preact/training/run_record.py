"""Writes, reads and checks the record of a run, config.json."""

import dataclasses
import importlib.metadata
import json
import platform
from collections.abc import Mapping

from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.support.options import LARGEST
from keras_preact.training import own_units
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.own_units import CodeRecord
from keras_preact.version import __version__

_WHAT = "the record of a run"
_MOST_LETTERS = 1000
# Packages that influence numbers and pictures.
_PACKAGES = (
    *("tensorflow", "keras", "numpy", "tensorflow-datasets", "scikit-learn"),
    *("absl-py", "etils", "matplotlib", "tensorboard", "tqdm"),
)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Parts of the file that are read; other parts are for people, or of later versions."""

    config: dict
    dataset: dict
    run: str | None = None
    history: list = dataclasses.field(default_factory=list)
    class_weights: dict | None = None
    code: dict | None = None


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """The record of a run.

    Args:
        config: configuration of the run.
        dataset: description of its data.
        history: an entry for each call, as parsed JSON.
        run: id of the run, which its checkpoints bear; None in records of early versions.
        class_weights: weight of each class by name; None where classes are not weighted.
        code: of the user's own, by the field of the configuration that names it.
    """

    config: TrainConfig
    dataset: DatasetInfo
    history: list
    run: str | None = None
    class_weights: dict[str, float] | None = None
    code: Mapping[str, CodeRecord] = dataclasses.field(default_factory=dict)


def write(path: epath.PathLike, record: RunRecord, plan: ComputePlan) -> None:
    """Writes the record of a run, with its compute plan and the versions of packages.

    Args:
        path: of config.json.
        record: to write.
        plan: compute plan of the call.
    """
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}
    parts = {
        "run": record.run,
        "config": record.config.to_json(),
        "dataset": record.dataset.to_json(),
        **({} if record.class_weights is None else {"class_weights": record.class_weights}),
        **({"code": _as_json(record.code)} if record.code else {}),
        "decision": dataclasses.asdict(plan),
        "versions": {
            "keras_preact": __version__,
            "python": platform.python_version(),
            **versions,
        },
        "history": record.history,
    }
    write_whole(path, f"{json.dumps(parts, indent=2)}\n".encode())


def _as_json(code):
    return {field: dataclasses.asdict(each) for field, each in code.items()}


def read(path: epath.PathLike) -> RunRecord:
    """Reads the record of a run; makes the copies of the user's code beside it known.

    Args:
        path: of config.json.

    Raises:
        ValueError: if the file is no such record; names the file and the field.
        OSError: if the file cannot be read.
    """
    parts = records.read_json(path, _Parts, _WHAT)
    with records.named(path, _WHAT):
        info = records.typed(parts.dataset, DatasetInfo, "dataset", exact=True)
        _check(info)
        code = records.typed(parts.code or {}, dict[str, CodeRecord], "code", exact=True)
        own_units.remember(epath.Path(path).parent / own_units.FOLDER, code)
        try:
            config = TrainConfig.from_json(parts.config, "config")
        except (ArithmeticError, RecursionError, TypeError, ValueError) as error:
            # Values that no flag can have may raise other errors, of any length.
            raise ValueError(str(error)[:_MOST_LETTERS]) from None
        for name in ("dataset", "depth"):
            if getattr(config, name) is None:
                raise ValueError(f"config.{name} must be given. Received: null")
        for name in own_units.FIELDS:
            named = own_units.parse(getattr(config, name))
            if named and named.digest not in {each.sha256 for each in code.values()}:
                raise ValueError(
                    f"config.{name} must be of the code that the record has. Received: "
                    f"{records.short(str(named))}"
                )
        weights = parts.class_weights
        if weights is not None:
            weights = records.typed(weights, dict[str, float], "class_weights")
    return RunRecord(config, info, parts.history, parts.run, weights, code)


def _check(info):
    shape, counts = info.image_shape, (info.train_count, info.eval_count)
    if not all(1 <= number <= LARGEST for number in (*shape, *counts)):
        raise ValueError(
            f"dataset.image_shape and the counts of images must be 1 to {LARGEST}. "
            f"Received: {records.short([*shape, *counts])}"
        )
    if not 0 <= info.test_count <= LARGEST:
        raise ValueError(
            f"dataset.test_count must be 0 to {LARGEST}. Received: {records.short(info.test_count)}"
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
