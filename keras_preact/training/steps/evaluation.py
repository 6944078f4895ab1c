"""Evaluates a network, counting every image exactly once."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.steps.loss import cross_entropy


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over the evaluation images.

    Args:
        loss: cross-entropy, in nats.
        confusion: int64 (classes, classes): images by true class (row) and predicted class.
    """

    loss: float
    confusion: np.ndarray

    @property
    def count(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images classified correctly, 0 to 1."""
        return float(np.trace(self.confusion) / self.count)

    @property
    def class_accuracies(self) -> np.ndarray:
        """Fraction of each class's images classified correctly; NaN for a class without images."""
        with np.errstate(invalid="ignore"):
            return np.diag(self.confusion) / self.confusion.sum(axis=1)

    def __str__(self) -> str:
        return (
            f"accuracy {self.accuracy:.2%} ({np.trace(self.confusion):,} of {self.count:,}), "
            f"error {1 - self.accuracy:.2%}, loss {self.loss:.4f}"
        )


def make_eval_step(
    model: keras.Model,
    info: DatasetInfo,
    strategy: tf.distribute.Strategy,
    variables: tuple[Sequence[tf.Variable], Sequence[tf.Variable]] | None = None,
) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Returns a function that evaluates one batch.

    Args:
        model: a built model.
        info: gives normalization and number of classes.
        strategy: gives the replicas.
        variables: trainable and other variables to evaluate with, in the model's order; by
            default its own.

    Returns:
        step(images, labels, weights, stop=0) -> the loss summed over images of weight 1;
        their confusion matrix, float32 (classes, classes); and the sum of stop over
        replicas, which lets all processes end an evaluation after the same batch.
    """

    def replica_step(images, labels, weights, stop):
        inputs = info.normalize(images)
        if variables is None:
            logits = model(inputs, training=False)
        else:
            values = [[tf.convert_to_tensor(v) for v in group] for group in variables]
            logits, _ = model.stateless_call(*values, inputs, training=False)
        losses = cross_entropy(logits, labels)
        predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
        confusion = tf.math.confusion_matrix(
            labels, predicted, info.classes, weights=weights, dtype=tf.float32
        )
        # reduce() sums only per-replica tensors, and stop is the same tensor on all.
        return tf.reduce_sum(losses * weights), confusion, tf.identity(stop)

    @tf.function
    def step(images, labels, weights, stop=0.0):
        stop = tf.convert_to_tensor(stop)
        per_replica = strategy.run(replica_step, args=(images, labels, weights, stop))
        return tuple(
            strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None) for value in per_replica
        )

    return step


def evaluate(
    eval_step: Callable,
    batches: Iterator,
    steps: int,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Evaluates all batches (images, labels, weights) of `Dataset.eval`.

    Args:
        eval_step: from `make_eval_step`.
        batches: iterator over the batches, distributed like the step.
        steps: number of batches.
        stop: called before each batch; returns whether to stop early.

    Returns:
        The evaluation; None if a process stopped it early.
    """
    loss, confusion = 0.0, 0
    for _ in range(steps):
        asked = tf.constant(float(stop()))
        # Summed in Python: float32 cannot count beyond 2**24.
        batch_loss, batch_confusion, stops = eval_step(*next(batches), asked)
        if stops > 0:
            return None
        loss += float(batch_loss)
        confusion = confusion + batch_confusion.numpy().astype(np.int64)
    return Evaluation(loss / int(confusion.sum()), confusion)
