"""Adds up an evaluation: in the graph over batches and replicas, then over launches."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.distribution.device_images import MOST_STEPS
from keras_preact.training.steps.loss import binary_cross_entropy, cross_entropy
from keras_preact.training.steps.scores import TOP, Evaluation, MultiLabelEvaluation

# Of the logits and labels that a launch returns.
_MOST_BYTES = 2**27

Launch = tuple[Sequence[np.ndarray], int]


def make(info: DatasetInfo) -> "OneLabel | SeveralLabels":
    """Returns the tally that suits the labels of a data set."""
    return (SeveralLabels if info.multi_label else OneLabel)(info.classes)


class OneLabel:
    """Sums the loss, and counts images by true and predicted class.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        self._classes = classes

    def most_steps(self, batch_size: int) -> int:
        """Returns the number of batches in a launch, at most."""
        return MOST_STEPS

    def of_batch(
        self, logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Returns loss, confusion matrix and correct answers among the likeliest five, as sums.

        Args:
            logits: float32 (batch, classes).
            labels: int32 (batch,).
            weights: float32 (batch,), 1 for images that count and 0 for others.
        """
        losses = cross_entropy(logits, labels)
        # A product of matrices, as not every device adds up at indices in a fixed order.
        true = tf.one_hot(labels, self._classes) * weights[:, None]
        predicted = tf.one_hot(tf.argmax(logits, axis=-1), self._classes)
        confusion = tf.matmul(true, predicted, transpose_a=True)
        among_top = tf.constant(0.0)
        if self._classes > TOP:
            among_top = tf.reduce_sum(_is_among_top(logits, labels) * weights)
        return tf.reduce_sum(losses * weights), confusion, among_top

    def of_replica(self, values: Sequence[tf.Tensor], replica: tf.Tensor, replicas: int):
        """Returns values whose sum over the replicas is that of the whole batch."""
        return values

    def begin(self, shape: Sequence[int | tf.Tensor | None]):
        """Returns the sums of no batch; see `SeveralLabels.begin`."""
        counts = tf.zeros([self._classes] * 2, tf.int64), tf.zeros([], tf.int64)
        return tf.zeros([], tf.float64), *counts

    def add(self, state, step: tf.Tensor, values: Sequence[tf.Tensor]):
        """Adds a batch."""
        # None loses an image: float32 cannot count beyond 2**24.
        return tuple(
            total + tf.cast(value, total.dtype) for total, value in zip(state, values, strict=True)
        )

    def end(self, state) -> tuple[tf.Tensor, ...]:
        """Returns what a launch gives to the host."""
        return state

    def result(self, launches: Sequence[Launch]) -> Evaluation:
        """Returns the evaluation of several launches: what each gave, and its number of steps."""
        losses, confusions, top5 = zip(*(parts for parts, _ in launches), strict=True)
        confusion = sum(confusions)
        # In the order of the launches, and in float64.
        loss = sum(map(float, losses)) / int(confusion.sum())
        return Evaluation(loss, confusion, int(sum(top5)) if self._classes > TOP else None)


class SeveralLabels:
    """Sums the loss, and returns logits and labels, as their order makes the average precision.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int):
        self._classes, self._width = classes, 2 * classes + 1

    def most_steps(self, batch_size: int) -> int:
        """Returns the number of batches in a launch, at most."""
        return max(1, min(MOST_STEPS, _MOST_BYTES // (4 * batch_size * self._width)))

    def of_batch(
        self, logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        """Returns the sum of losses, and a row of logits, labels and weight for each image."""
        losses = binary_cross_entropy(logits, labels)
        rows = tf.concat([logits, labels, weights[:, None]], axis=1)
        return tf.reduce_sum(losses * weights), rows

    def of_replica(self, values: Sequence[tf.Tensor], replica: tf.Tensor, replicas: int):
        """Returns values whose sum over the replicas is that of the whole batch."""
        loss, rows = values
        # Adding zeros is exact; not every strategy gathers in a replica.
        is_own = tf.range(replicas) == replica
        return loss, tf.where(is_own[:, None, None], rows, tf.zeros_like(rows))

    def begin(self, shape: Sequence[int | tf.Tensor | None]):
        """Returns the sums of no batch.

        Args:
            shape: (batches, replicas, images of a replica) of a launch, at most; None for an
                unknown number of images.
        """
        batches, *rest = shape
        rows = tf.TensorArray(tf.float32, batches, element_shape=[*rest, self._width])
        return tf.zeros([], tf.float64), rows

    def add(self, state, step: tf.Tensor, values: Sequence[tf.Tensor]):
        """Adds a batch."""
        loss, rows = state
        return loss + tf.cast(values[0], loss.dtype), rows.write(step, values[1])

    def end(self, state) -> tuple[tf.Tensor, ...]:
        """Returns what a launch gives to the host."""
        loss, rows = state
        return loss, rows.stack()

    def result(self, launches: Sequence[Launch]) -> MultiLabelEvaluation:
        """Returns the evaluation of several launches: what each gave, and its number of steps."""
        rows = np.concatenate(
            [rows[:steps].reshape(-1, self._width) for (_, rows), steps in launches]
        )
        rows = rows[rows[:, -1] > 0]
        loss = sum(float(loss) for (loss, _), _ in launches) / len(rows)
        return MultiLabelEvaluation.of(loss, rows[:, : self._classes], rows[:, self._classes : -1])


def _is_among_top(logits, labels):
    """1 for images whose class is among the likeliest; of equal logits the first class leads."""
    own = tf.gather(logits, labels, axis=1, batch_dims=1)[:, None]
    is_before = tf.range(logits.shape[-1])[None] < labels[:, None]
    ahead = (logits > own) | ((logits == own) & is_before)
    return tf.cast(tf.reduce_sum(tf.cast(ahead, tf.int32), axis=1) < TOP, tf.float32)
