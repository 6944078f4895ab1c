"""What the steps of a run reported, kept on the device until it is asked for."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_preact.training.loss_scale import SMALLEST_SCALE
from keras_preact.training.step import REPORT


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


class Reports:
    """The reports of a `TrainStep`, step by step.

    Args:
        start: steps taken before the first of them.
    """

    def __init__(self, start: int):
        self._done = start
        self._pending: list[tf.Tensor] = []
        self._previous: tf.Tensor | None = None
        self._newest: tf.Tensor | None = None
        self._since_evaluation: list[np.ndarray] = []

    def add(self, rows: tf.Tensor) -> None:
        """The report of further steps, float32 (steps, len(REPORT)); does not wait for them."""
        self._pending.append(rows)
        self._previous, self._newest = self._newest, rows

    def wait(self) -> None:
        """Returns once all steps have been taken."""
        self._newest.numpy()

    def earlier_stop_requests(self) -> int:
        """How many processes asked to stop, known without waiting for the newest steps."""
        if self._previous is None:
            return 0
        return int(self._previous.numpy()[-1, REPORT.index("stop_requests")])

    def collect(self) -> tuple[Means | None, tuple[int, float] | None]:
        """Means over the steps since the last call, None where there were none.

        Returns:
            The means, and the first step that must end the run with its loss; None where
            there is none.
        """
        if not self._pending:
            return None, None
        rows = np.concatenate([rows.numpy() for rows in self._pending]).astype(np.float64)
        self._pending = []
        first = self._done + 1
        self._done += len(rows)
        self._since_evaluation.append(rows)
        for step, row in enumerate(rows, first):
            report = dict(zip(REPORT, row, strict=True))
            hopeless = report["loss_scale"] <= SMALLEST_SCALE
            # A step that was not applied has done no harm: its loss scale has been lowered.
            if not math.isfinite(report["loss"]) and (report["applied"] or hopeless):
                return None, (step, report["loss"])
        return _means(rows), None

    def since_evaluation(self) -> Means:
        """Means over all steps since the last call of this method."""
        rows, self._since_evaluation = np.concatenate(self._since_evaluation), []
        return _means(rows)


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
