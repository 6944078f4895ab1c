"""Facts about a run beside its result: environment, commands, times, and its curves."""

import dataclasses
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from keras_preact.experiments.results import SeedResult
from keras_preact.support import records
from keras_preact.support.text import printable
from keras_preact.training.reporting import propagation_file
from keras_preact.training.reporting.propagation_file import PropagationLog
from keras_preact.training.run_folder import RunFolder

T = TypeVar("T")

# Fewer evaluations make no curve: the training error comes from TensorBoard's scalars instead.
FEWEST_EVALUATIONS = 3
_MOST_LETTERS = 500


@dataclasses.dataclass(frozen=True)
class Curve:
    """An error by step. Arrays are (points,); errors are 0 to 1."""

    steps: np.ndarray
    errors: np.ndarray

    def __bool__(self) -> bool:
        return bool(len(self.steps))


@dataclasses.dataclass(frozen=True)
class Environment:
    """The software and devices of a run.

    Args:
        devices: in words.
        precision: name of a Keras dtype policy.
        versions: of packages, in words.
    """

    devices: str
    precision: str
    versions: str


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """The facts about a run; of a run that has not begun, None and empty ones.

    Args:
        result: of the run.
        training: error on augmented images, means between evaluations or, if `is_logged`,
            between log steps.
        evaluation: error on the evaluation images.
        is_logged: whether `training` comes from TensorBoard's scalars.
        steps: taken, as far as is known.
        images: of training, evaluation and test split.
        environment: of its last call.
        commands: that started and resumed it.
        seconds: in training.
        images_per_second: in the median over its evaluations.
        propagation: its records.
        problems: why files could not be read.
    """

    result: SeedResult
    training: Curve
    evaluation: Curve
    is_logged: bool
    steps: int
    images: tuple[int, int, int] | None
    environment: Environment | None
    commands: tuple[str, ...]
    seconds: float | None
    images_per_second: float | None
    propagation: PropagationLog | None
    problems: tuple[str, ...]


def read(result: SeedResult) -> RunFacts:
    """Reads the facts about a run from its folder; damaged files become `problems`."""
    problems = [result.message] if result.state == "damaged" else []
    rows, folder = result.rows, result.folder
    record = _tried(problems, _record, folder) or {}
    steps = np.array([row.step for row in rows], int)
    training, logged = _curve(steps, [row.train_accuracy for row in rows]), Curve(steps[:0], [])
    if record and len(rows) < FEWEST_EVALUATIONS:
        logged = _tried(problems, _logged, folder) or logged
    rates = [row.images_per_second for row in rows]
    return RunFacts(
        result,
        logged or training,
        _curve(steps, [row.eval_accuracy for row in rows]),
        bool(logged),
        max(result.steps, int(logged.steps[-1]) if logged else 0),
        _images(record),
        _environment(record),
        tuple(_commands(record)),
        rows[-1].elapsed_seconds if rows else None,
        float(np.median(rates)) if rates else None,
        _tried(problems, propagation_file.read, folder.propagation),
        tuple(printable(problem)[:_MOST_LETTERS] for problem in problems),
    )


def _tried(problems: list[str], reading: Callable[..., T], *arguments: Any) -> T | None:
    """The result of a reading, or None and one more problem."""
    try:
        return reading(*arguments)
    except (ValueError, OSError) as error:
        # Another machine may write, move or delete the run meanwhile.
        problems.append(str(error))
    return None


def _curve(steps, accuracies):
    return Curve(steps, 1 - np.array(accuracies, np.float64))


def _record(folder: RunFolder) -> Mapping[str, Any]:
    """The parts of config.json, also those that no program reads."""
    if not folder.holds_a_run():
        return {}
    data = records.contents(folder.config)
    with records.named(folder.config, "the record of a run"):
        return records.typed(records.parse_json(records.decoded(data)), dict)


def _logged(folder: RunFolder) -> Curve:
    """The training error of the log steps, as TensorBoard shows it."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    path = folder.tensorboard / "train"
    if not path.is_dir():
        return Curve(np.array([], int), np.array([]))
    # Pictures and histograms are not kept.
    accumulator = EventAccumulator(str(path), {"tensors": 0})
    try:
        accumulator.Reload()
        events = accumulator.Tensors("accuracy")
    except KeyError:
        events = []
    except Exception as error:
        # The reader of damaged events raises errors of many classes.
        raise ValueError(f"{path} cannot be read: {type(error).__name__}: {error}") from None
    points = {
        event.step: float(tf.make_ndarray(event.tensor_proto))
        for event in events
        if event.tensor_proto.dtype == tf.float32.as_datatype_enum
    }
    points = {step: value for step, value in sorted(points.items()) if math.isfinite(value)}
    return _curve(np.array([*points], int), [*points.values()])


def _images(record):
    counts = [_part(record, "dataset").get(f"{name}_count") for name in ("train", "eval", "test")]
    if not all(isinstance(count, int) for count in counts[:2]):
        return None
    return counts[0], counts[1], counts[2] if isinstance(counts[2], int) else 0


def _environment(record) -> Environment | None:
    plan, versions = _part(record, "decision"), _part(record, "versions")
    if not plan and not versions:
        return None
    devices = plan.get("devices")
    devices = ", ".join(map(str, devices)) if isinstance(devices, list) else "unknown"
    if plan.get("workers", 1) != 1:
        devices += f", {plan['workers']} workers"
    if plan.get("strategy") not in (None, "one_device"):
        devices += f", {plan['strategy']}"
    return Environment(
        devices + (", XLA" if plan.get("xla") else ""),
        str(plan.get("precision", "unknown")),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    )


def _commands(record) -> Sequence[str]:
    history = record.get("history")
    for call in history if isinstance(history, list) else ():
        words = call.get("command") if isinstance(call, dict) else None
        if isinstance(words, list):
            yield shlex.join(map(str, words))


def _part(record, name) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}
