"""Metrics of the steps of a run."""

import dataclasses
import math

import numpy as np

from keras_preact.support.errors import RunError
from keras_preact.training.steps.loss_scale import SMALLEST_SCALE
from keras_preact.training.steps.train_step import REPORT


class DivergenceError(RunError):
    """The loss, or a variable, is no longer finite."""

    # Told apart from failures: the outcome of an experiment, which would come out so again.
    exit_code = 4


@dataclasses.dataclass(frozen=True)
class Means:
    """Means over some steps.

    Args:
        steps: number of steps.
        loss: cross-entropy, in nats.
        accuracy: 0 to 1.
        gradient_norm: Euclidean, over all weights.
        loss_scale: of the last step; 1 except in float16.
        skipped_steps: number of steps not applied, as float16 overflowed.
        wait_seconds: time spent waiting for input, in all these steps.
    """

    steps: int
    loss: float
    accuracy: float
    gradient_norm: float
    loss_scale: float
    skipped_steps: int
    wait_seconds: float


class StepMetrics:
    """The metrics that a `TrainStep` reports for each step.

    Args:
        start: number of steps taken before.
        rows: of the steps since the last evaluation, from `rows_since_evaluation`.

    Attributes:
        stop_requests: number of replicas whose process asked to stop at the newest step.
        bad: first step that was not finite, in words; None if all were.
    """

    def __init__(self, start: int, rows: np.ndarray | None = None):
        self._done = start
        self._window: list[np.ndarray] = []
        self._since_evaluation = [np.zeros((0, len(REPORT))) if rows is None else rows]
        self.stop_requests = 0
        self.bad: str | None = None

    def add(self, rows: np.ndarray) -> None:
        """Adds the reports of further steps, float32 (steps, len(REPORT))."""
        rows = rows.astype(np.float64)
        self._window.append(rows)
        self._since_evaluation.append(rows)
        for row in rows:
            self._done += 1
            report = dict(zip(REPORT, row, strict=True))
            # A skipped step is harmless: it has lowered the loss scale.
            harmful = report["applied"] or report["loss_scale"] <= SMALLEST_SCALE
            for name, words in (("loss", "loss"), ("gradient_norm", "norm of the gradient")):
                if harmful and not math.isfinite(report[name]) and self.bad is None:
                    self.bad = f"The {words} was {report[name]} at step {self._done:,}"
        self.stop_requests = int(rows[-1, REPORT.index("stop_requests")])

    def collect(self) -> tuple[Means | None, str | None]:
        """Starts the next means.

        Returns:
            Means over the steps since the last call, None without any; and the first step
            that was not finite, in words, or None.
        """
        if self.bad or not self._window:
            return None, self.bad
        rows, self._window = np.concatenate(self._window), []
        return _means(rows), None

    def rows_since_evaluation(self) -> np.ndarray:
        """Returns the reports since the last evaluation, float64 (steps, len(REPORT))."""
        return np.concatenate(self._since_evaluation)

    def since_evaluation(self) -> Means:
        """Returns means over the steps since the last call."""
        rows, self._since_evaluation = self.rows_since_evaluation(), [self._since_evaluation[0][:0]]
        return _means(rows)


def _means(rows):
    columns = dict(zip(REPORT, rows.T, strict=True))
    applied = columns["applied"] > 0

    def mean(name):
        # Skipped steps would make the mean infinite.
        return float(columns[name][applied].mean()) if applied.any() else math.nan

    return Means(
        steps=len(rows),
        loss=mean("loss"),
        accuracy=mean("correct"),
        gradient_norm=mean("gradient_norm"),
        loss_scale=float(columns["loss_scale"][-1]),
        skipped_steps=int((~applied).sum()),
        wait_seconds=float(columns["wait_seconds"].sum()),
    )
