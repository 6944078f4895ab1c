"""Evaluation that counts every image exactly once."""

import dataclasses
from collections.abc import Callable

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over the evaluation images.

    Args:
        loss: cross-entropy, in nats.
        accuracy: share of right answers, 0 to 1.
        count: number of images.
    """

    loss: float
    accuracy: float
    count: int

    def __str__(self) -> str:
        right = round(self.accuracy * self.count)
        return (
            f"accuracy {self.accuracy:.2%} ({right:,} of {self.count:,}), "
            f"error {1 - self.accuracy:.2%}, loss {self.loss:.4f}"
        )


def evaluate(eval_step: Callable, batches: tf.data.Dataset, count: int) -> Evaluation:
    """Runs eval_step over all batches (images, labels, weights) of `Dataset.eval`.

    Args:
        eval_step: from `make_eval_step`.
        batches: a data set, or a distributed one.
        count: number of images of weight 1.
    """
    loss = correct = 0.0
    for batch in batches:
        # Summed as Python floats: float32 could no longer count beyond 2**24.
        batch_loss, batch_correct = eval_step(*batch)
        loss += float(batch_loss)
        correct += float(batch_correct)
    return Evaluation(loss / count, correct / count, count)
