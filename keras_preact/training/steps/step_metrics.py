"""Metrics of the steps of a run, left on the device until they are read."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_preact.support.errors import RunError
from keras_preact.training.steps.loss_scale import SMALLEST_SCALE
from keras_preact.training.steps.train_step import REPORT


class DivergenceError(RunError):
    """The loss, or a variable, is no longer finite."""


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
    """

    def __init__(self, start: int, rows: np.ndarray | None = None):
        self._done = start
        self._pending: list[tf.Tensor] = []
        self._newest: tf.Tensor | None = None
        self._window: list[np.ndarray] = []
        self._since_evaluation = [np.zeros((0, len(REPORT))) if rows is None else rows]
        self._stop_requests = 0
        self._bad: str | None = None

    def add(self, rows: tf.Tensor) -> None:
        """Adds the report of further steps, float32 (steps, len(REPORT)), without waiting."""
        self._pending.append(rows)
        self._newest = rows

    def wait(self) -> None:
        """Waits for all steps."""
        self._newest.numpy()

    def look_back(self) -> tuple[int, str | None]:
        """Reads all reports but the newest, which a GPU may still be computing.

        Returns:
            The number of processes that asked to stop before the newest steps; and the
            first step that was not finite, in words, or None.
        """
        while len(self._pending) > 1:
            self._read(self._pending.pop(0))
        return self._stop_requests, self._bad

    def read(self) -> str | None:
        """Waits for all steps; returns the first that was not finite, in words, or None."""
        while self._pending:
            self._read(self._pending.pop(0))
        return self._bad

    def collect(self) -> tuple[Means | None, str | None]:
        """Reads all reports, and starts the next means.

        Returns:
            Means over the steps since the last call, None without any; and the first step
            that was not finite, in words, or None.
        """
        bad = self.read()
        if bad or not self._window:
            return None, bad
        rows, self._window = np.concatenate(self._window), []
        return _means(rows), None

    def rows_since_evaluation(self) -> np.ndarray:
        """Returns the reports since the last evaluation, float64 (steps, len(REPORT))."""
        return np.concatenate(self._since_evaluation)

    def since_evaluation(self) -> Means:
        """Returns means over the steps since the last call."""
        rows, self._since_evaluation = self.rows_since_evaluation(), [self._since_evaluation[0][:0]]
        return _means(rows)

    def _read(self, tensor):
        rows = tensor.numpy().astype(np.float64)
        self._window.append(rows)
        self._since_evaluation.append(rows)
        for row in rows:
            self._done += 1
            report = dict(zip(REPORT, row, strict=True))
            # A skipped step is harmless: it has lowered the loss scale.
            harmful = report["applied"] or report["loss_scale"] <= SMALLEST_SCALE
            for name, words in (("loss", "loss"), ("gradient_norm", "norm of the gradient")):
                if harmful and not math.isfinite(report[name]) and self._bad is None:
                    self._bad = f"The {words} was {report[name]} at step {self._done:,}"
        self._stop_requests = int(rows[-1, REPORT.index("stop_requests")])


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
