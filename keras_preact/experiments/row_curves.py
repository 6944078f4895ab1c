"""The curves of a row: medians over its seeds with bands."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_preact.experiments.results import RowResult
from keras_preact.experiments.run_facts import Curve, RunFacts
from keras_preact.training.steps.schedules import make_schedule


@dataclasses.dataclass(frozen=True)
class Band:
    """Curves of several runs. Arrays are (points,); errors are 0 to 1.

    Args:
        steps: those at which a run has a point, ascending.
        median: over the runs that have a point there.
        low: the lowest of these.
        high: the highest.
        runs: number of runs.
    """

    steps: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    runs: int

    def __bool__(self) -> bool:
        return bool(len(self.steps))


@dataclasses.dataclass(frozen=True)
class RowCurves:
    """The curves of a row.

    Args:
        label: of the row.
        training: error on augmented training images.
        evaluation: error on the evaluation images.
        drop_steps: where the learning rate drops, up to the last point.
        is_logged: whether the training error comes from TensorBoard's scalars, as there are too
            few evaluations for a curve.
        diverged: the last steps of runs that diverged.
    """

    label: str
    training: Band
    evaluation: Band
    drop_steps: tuple[int, ...]
    is_logged: bool
    diverged: tuple[int, ...] = ()

    @property
    def main(self) -> Band:
        """The evaluation, or where it is no curve the training."""
        return self.training if self.is_logged else self.evaluation


def of_row(label: str, result: RowResult, facts: Sequence[RunFacts]) -> RowCurves:
    """The curves of a row from the facts about its runs."""
    training = band([run.training for run in facts])
    evaluation = band([run.evaluation for run in facts])
    last = max((int(each.steps[-1]) for each in (training, evaluation) if each), default=0)
    counts = [run.images[0] for run in facts if run.images]
    drops = make_schedule(result.config, counts[0]).drop_steps if counts else ()
    return RowCurves(
        label,
        training,
        evaluation,
        tuple(step for step in drops if step < last),
        any(run.is_logged for run in facts),
        tuple(run.steps for run in facts if run.result.state == "diverged"),
    )


def band(curves: Sequence[Curve]) -> Band:
    """The median and the range of curves at each step; values that are not finite are left out."""
    points: dict[int, list[float]] = {}
    for curve in curves:
        for step, error in zip(curve.steps, curve.errors, strict=True):
            if np.isfinite(error):
                points.setdefault(int(step), []).append(float(error))
    steps = sorted(points)
    return Band(
        np.array(steps, int),
        *(np.array([find(points[step]) for step in steps]) for find in (np.median, min, max)),
        sum(1 for curve in curves if curve),
    )
