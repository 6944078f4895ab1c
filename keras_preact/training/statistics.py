"""The statistics of BN: averaged over replicas, or computed anew."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.packing import all_reduce
from keras_preact.training.state import TrainState
from keras_preact.training.step import make_normalizer


def make_merge(state: TrainState, strategy: tf.distribute.Strategy) -> Callable[[], None]:
    """A function that sets the statistics of every replica to their mean over all replicas.

    All statistics travel in one all-reduce. Every worker must call it.
    """
    variables = state.statistics()
    if strategy.num_replicas_in_sync == 1 or not variables:
        return lambda: None

    def replica_merge():
        means = all_reduce(tf.distribute.ReduceOp.MEAN, variables)
        for variable, mean in zip(variables, means, strict=True):
            variable.assign(mean)

    @tf.function
    def merge():
        strategy.run(replica_merge)

    return merge


class Recomputation:
    """Computes statistics anew, as the mean over training batches, for the weights to evaluate.

    Moving averages lag behind the weights, and averaged weights have none of their own.
    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3.

    Args:
        state: whose evaluated statistics are replaced.
        info: of the data.
        strategy: over which replicas a batch is spread.
    """

    def __init__(self, state: TrainState, info: DatasetInfo, strategy: tf.distribute.Strategy):
        self._trainable, non_trainable = state.evaluated()
        self._model, self._strategy = state.model, strategy
        self._normalize = make_normalizer(info.mean, info.std)
        # The others are the states of random layers, which are integers.
        self._chosen = [variable.dtype.is_floating for variable in non_trainable]
        self._all = non_trainable
        self._statistics = [v for v, c in zip(non_trainable, self._chosen, strict=True) if c]
        self._updated = tf.function(self._run)

    def __call__(self, batches: Iterator, count: int) -> None:
        """Replaces the statistics of each replica by the mean over count of its batches.

        Args:
            batches: an iterator over (images, labels), distributed.
            count: above 0.
        """
        # An update is momentum * old + (1 - momentum) * of the batch: from zeros and from
        # ones it gives the momentum, whatever layer it is of.
        zero, one = tf.constant(0.0), tf.constant(1.0)
        first = next(batches)
        zeros, ones = self._updated(*first, zero), self._updated(*first, one)
        sums = zeros
        for _ in range(count - 1):
            sums = self._add(sums, self._updated(*next(batches), zero))
        self._assign(sums, zeros, ones, count)

    def _run(self, images, labels, old):
        def replica_run(images):
            values = [
                tf.zeros_like(v) + tf.cast(old, v.dtype) if chosen else tf.convert_to_tensor(v)
                for v, chosen in zip(self._all, self._chosen, strict=True)
            ]
            trainable = [tf.convert_to_tensor(v) for v in self._trainable]
            inputs = self._normalize(images)
            _, new = self._model.stateless_call(trainable, values, inputs, training=True)
            return [v for v, chosen in zip(new, self._chosen, strict=True) if chosen]

        return self._strategy.run(replica_run, args=(images,))

    @tf.function
    def _add(self, first, second):
        return self._strategy.run(lambda a, b: tf.nest.map_structure(tf.add, a, b), (first, second))

    @tf.function
    def _assign(self, sums, zeros, ones, count):
        def replica_assign(sums, zeros, ones):
            for variable, total, zero, one in zip(self._statistics, sums, zeros, ones, strict=True):
                weight = 1 - (one - zero)
                # A variable that the call left as it was is not a statistic.
                is_statistic = weight > np.float32(1e-6)
                mean = total / tf.where(is_statistic, weight, 1) / tf.cast(count, total.dtype)
                variable.assign(tf.where(is_statistic, mean, variable))

        self._strategy.run(replica_assign, args=(sums, zeros, ones))
