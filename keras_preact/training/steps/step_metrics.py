"""What the steps of a run reported, kept on the device until it is asked for."""

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
        steps: how many.
        loss: cross-entropy, in nats.
        accuracy: share of right answers, 0 to 1.
        gradient_norm: Euclidean, over all weights.
        loss_scale: of float16; 1 otherwise.
        skipped_steps: how many steps did not change the weights, because float16 overflowed.
        wait_seconds: in all these steps, for input.
    """

    steps: int
    loss: float
    accuracy: float
    gradient_norm: float
    loss_scale: float
    skipped_steps: int
    wait_seconds: float


class StepMetrics:
    """The reports of a `TrainStep`, step by step.

    Args:
        start: steps taken before the first of them.
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
        """The report of further steps, float32 (steps, len(REPORT)); does not wait for them."""
        self._pending.append(rows)
        self._newest = rows

    def wait(self) -> None:
        """Returns once all steps have been taken."""
        self._newest.numpy()

    def look_back(self) -> tuple[int, str | None]:
        """Reads all reports but the newest, for which a GPU would have to be waited for.

        Returns:
            How many processes asked to stop before the newest steps; and what must end
            the run, None for nothing.
        """
        while len(self._pending) > 1:
            self._read(self._pending.pop(0))
        return self._stop_requests, self._bad

    def read(self) -> str | None:
        """Waits for all steps; returns what must end the run, None for nothing."""
        while self._pending:
            self._read(self._pending.pop(0))
        return self._bad

    def collect(self) -> tuple[Means | None, str | None]:
        """Means over the steps since the last call, None where there were none.

        Returns:
            The means, and what must end the run with its step; None where there is nothing.
        """
        bad = self.read()
        if bad or not self._window:
            return None, bad
        rows, self._window = np.concatenate(self._window), []
        return _means(rows), None

    def rows_since_evaluation(self) -> np.ndarray:
        """What has been read since `since_evaluation`, float64 (steps, len(REPORT))."""
        return np.concatenate(self._since_evaluation)

    def since_evaluation(self) -> Means:
        """Means over all steps since the last call of this method."""
        rows, self._since_evaluation = self.rows_since_evaluation(), [self._since_evaluation[0][:0]]
        return _means(rows)

    def _read(self, tensor):
        rows = tensor.numpy().astype(np.float64)
        self._window.append(rows)
        self._since_evaluation.append(rows)
        for row in rows:
            self._done += 1
            report = dict(zip(REPORT, row, strict=True))
            # A step that was not applied has done no harm: its loss scale has been lowered.
            harmful = report["applied"] or report["loss_scale"] <= SMALLEST_SCALE
            for name, words in (("loss", "loss"), ("gradient_norm", "norm of the gradient")):
                if harmful and not math.isfinite(report[name]) and self._bad is None:
                    self._bad = f"The {words} was {report[name]} at step {self._done:,}"
        self._stop_requests = int(rows[-1, REPORT.index("stop_requests")])


def _means(rows):
    columns = dict(zip(REPORT, rows.T, strict=True))
    applied = columns["applied"] > 0

    def mean(name):
        # What overflowed is no part of a mean.
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
