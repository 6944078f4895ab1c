"""Follows the figure that chooses the best checkpoint, and may stop a run early."""

import dataclasses
import math
from collections.abc import Callable

from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.scores import Scored


@dataclasses.dataclass
class Monitor:
    """The best evaluation of a run so far.

    Args:
        figure: what is monitored, one of `scores.MONITORS`.
        patience_epochs: epochs without a better evaluation after which to stop; None for never.
        epoch: returns the whole epochs seen after some steps.
        best_score: of the best evaluation; see `Scored.score`.
        best_step: number of steps before it.
    """

    figure: str
    patience_epochs: int | None
    epoch: Callable[[int], int]
    best_score: float = -math.inf
    best_step: int = 0

    def add(self, evaluation: Scored, step: int) -> bool:
        """Adds the evaluation after some steps; returns whether it is better than all before."""
        score = evaluation.score(self.figure)
        if not score > self.best_score:
            return False
        self.best_score, self.best_step = score, step
        return True

    def stops(self, step: int) -> bool:
        """Whether an evaluation after some steps is the last: none was better for too long."""
        if self.patience_epochs is None:
            return False
        return self.epoch(step) - self.epoch(self.best_step) >= self.patience_epochs

    def saved(self) -> dict[str, float]:
        """Returns the fields of a `RunState` with the best evaluation; none before the first."""
        if not math.isfinite(self.best_score):
            return {}
        return {"best_score": self.best_score, "best_step": self.best_step}

    def restore(self, run_state: RunState) -> None:
        """Goes on from the best evaluation in a run state."""
        self.best_score, self.best_step = run_state.best_score, run_state.best_step
        if self.best_step < 0:
            # Checkpoints of earlier versions have the accuracy alone, which is -1 before the first.
            self.best_step = run_state.step
            if self.best_score < 0:
                self.best_score = -math.inf

    def __str__(self) -> str:
        words = self.figure.replace("_", " ").replace("f1", "F1")
        best = f"{-self.best_score:.4f}" if self.figure == "loss" else f"{self.best_score:.2%}"
        return (
            f"{words} has not improved for {self.patience_epochs} epochs; the best, {best} at step "
            f"{self.best_step:,}, is kept as --checkpoint=best."
        )
