"""Evaluates a network, counting every image exactly once."""

import dataclasses
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.data.dataset import eval_pieces
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.device_images import (
    MOST_STEPS,
    DeviceImages,
    feed_eval_pieces,
)
from keras_preact.training.distribution.distributed_input import feed_evaluation
from keras_preact.training.steps.loss import cross_entropy
from keras_preact.training.steps.pace import Pace

Values = tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]


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


class Evaluator:
    """Evaluates a network on all evaluation images, many batches in one launch.

    Sums stay on the devices until a launch is over. Launches are made as training steps are; see
    `TrainStep`.

    Args:
        model: a built model.
        data: evaluation images; its info gives normalization and number of classes.
        plan: compute plan.
        strategy: gives the replicas.
        values: returns trainable and other values to evaluate with, in the model's order; by
            default its own. Called in a replica context.
        images: the data's, on the devices; None to read them from the host.
    """

    def __init__(
        self,
        model: keras.Model,
        data: Dataset,
        plan: ComputePlan,
        strategy: tf.distribute.Strategy,
        values: Callable[[], Values] | None = None,
        images: DeviceImages | None = None,
    ):
        self._model, self._data, self._plan, self._strategy = model, data, plan, strategy
        self._values = values or self._own_values
        self._images = images
        self._pace, self._is_compiled = Pace(most=MOST_STEPS), False
        self._takes_pieces = images is not None and plan.replicas == 1
        if self._takes_pieces:
            self._function = tf.function(self._launch_from_pieces, jit_compile=plan.xla_loops)
        else:
            self._function = tf.function(self._launch)
        if not (self._takes_pieces and plan.xla_loops):
            self._sums = tf.function(self._sums, jit_compile=plan.xla)

    def __call__(
        self, batch_size: int, stop: Callable[[], bool] = lambda: False
    ) -> Evaluation | None:
        """Evaluates.

        Args:
            batch_size: images in a batch, on all devices together.
            stop: called before each launch; returns whether to stop early.

        Returns:
            The evaluation; None if a process stopped it early.
        """
        batches = -(-self._data.info.eval_count // batch_size)
        feed, done, sums, own_seconds = self._feed(batch_size), 0, [0.0, 0], 0.0
        while done < batches:
            begin, steps = time.perf_counter(), min(self._pace.next, batches - done)
            with tf.device("CPU"):
                asked = tf.constant([float(stop()), own_seconds])
                arguments = (*feed(done, steps), tf.constant(steps), asked)
            loss, confusion, [stops, seconds] = (part.numpy() for part in self._take(arguments))
            if stops > 0:
                return None
            # Each process learns the mean of all, so that all take as many batches.
            self._pace.update(float(seconds) / self._plan.replicas)
            if self._is_compiled:
                own_seconds = (time.perf_counter() - begin) / steps
            self._is_compiled = True
            sums, done = [sums[0] + float(loss), sums[1] + confusion], done + steps
        return Evaluation(sums[0] / int(sums[1].sum()), sums[1])

    def _feed(self, batch_size):
        """Returns a function of a batch's number and of how many to take."""
        count = self._data.info.eval_count
        if self._takes_pieces:
            return _Pieces(count, batch_size).take
        if self._images:
            iterator = feed_eval_pieces(self._strategy, count, batch_size)
        else:
            iterator, _ = feed_evaluation(self._strategy, self._data, batch_size)
        return lambda done, steps: (iterator,)

    def _take(self, arguments):
        if self._takes_pieces:
            return self._strategy.run(self._function, args=arguments)
        return self._function(*arguments)

    def _launch_from_pieces(self, indices, weights, steps, asked):
        return self._loop(steps, asked, lambda step: self._sums((indices[step], weights[step])))

    def _launch(self, iterator, steps, asked):
        def sums_of_next(step):
            sums = self._strategy.run(self._sums, args=(next(iterator),))
            return [self._total(value) for value in sums]

        # reduce() sums only per-replica tensors, and what is asked is the same tensor on all.
        asked = self._total(self._strategy.run(tf.identity, args=(asked,)))
        return self._loop(steps, asked, sums_of_next)

    def _loop(self, steps, asked, sums_of):
        def body(step, loss, confusion):
            of_batch = sums_of(step)
            # Neither loses an image: float32 cannot count beyond 2**24.
            loss += tf.cast(of_batch[0], tf.float64)
            return step + 1, loss, confusion + tf.cast(of_batch[1], tf.int64)

        classes = self._data.info.classes
        zeros = 0, tf.zeros([], tf.float64), tf.zeros([classes, classes], tf.int64)
        _, loss, confusion = tf.while_loop(
            lambda step, *_: step < steps, body, zeros, parallel_iterations=1
        )
        return loss, confusion, asked

    def _sums(self, batch):
        """Sums the loss of a replica's images of weight 1, and counts them by classes."""
        images, labels, weights = self._images.eval_batch(*batch) if self._images else batch
        inputs = self._data.info.normalize(images)
        logits, _ = self._model.stateless_call(*self._values(), inputs, training=False)
        losses = cross_entropy(logits, labels)
        classes = self._data.info.classes
        # A product of matrices, as not every device adds up at indices in a fixed order.
        true = tf.one_hot(labels, classes) * weights[:, None]
        predicted = tf.one_hot(tf.argmax(logits, axis=-1), classes)
        return tf.reduce_sum(losses * weights), tf.matmul(true, predicted, transpose_a=True)

    def _own_values(self):
        groups = self._model.trainable_variables, self._model.non_trainable_variables
        return [[tf.convert_to_tensor(v.value) for v in group] for group in groups]

    def _total(self, value):
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)


class _Pieces:
    """Indices and weights of evaluation batches, in arrays of one shape."""

    def __init__(self, count, batch_size):
        self._pieces = eval_pieces(count, batch_size)

    def take(self, done, steps):
        """Returns int32 and float32 (MOST_STEPS, batch), of which the first steps count."""
        arrays = []
        for values, dtype in zip(self._pieces, (np.int32, np.float32), strict=True):
            array = np.zeros((MOST_STEPS, values.shape[1]), dtype)
            array[:steps] = values[done : done + steps]
            arrays.append(tf.constant(array))
        return arrays
