"""BN statistics for an evaluation: averaged over replicas, or recomputed."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.distribution.strategies import all_reduce
from keras_preact.training.steps.train_state import TrainState


class ReplicaStatistics:
    """The BN statistics of each replica.

    Every worker must call each method, as all values are exchanged in one all-reduce.

    Args:
        state: of the run.
        strategy: gives the replicas.
    """

    def __init__(self, state: TrainState, strategy: tf.distribute.Strategy):
        self._variables = list(state.statistics().values())
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync
        self._differ = self._replicas > 1 and bool(self._variables)
        self._merge_all = tf.function(lambda: strategy.run(self._replica_merge))
        self._gather_all = tf.function(lambda: strategy.run(self._replica_gather))
        self._scatter_all = tf.function(lambda rows: strategy.run(self._replica_scatter, (rows,)))

    def merge(self) -> None:
        """Sets the statistics of every replica to their mean over replicas."""
        if self._differ:
            self._merge_all()

    def gather(self) -> np.ndarray:
        """Returns a row of statistics for each replica: float32 (replicas, values); else (0, 0)."""
        if not self._differ:
            return np.zeros((0, 0), np.float32)
        return self._strategy.experimental_local_results(self._gather_all())[0].numpy()

    def scatter(self, rows: np.ndarray) -> None:
        """Sets the statistics to rows from `gather`, if they are of as many replicas."""
        if self._differ and len(rows) == self._replicas:
            self._scatter_all(tf.constant(rows))

    def _replica_merge(self):
        self._assign(all_reduce(tf.distribute.ReduceOp.MEAN, self._variables))

    def _replica_gather(self):
        own = tf.concat([tf.reshape(variable, [-1]) for variable in self._variables], axis=0)
        # Adding zeros is exact; not every strategy has an all-gather in replica context.
        row = tf.range(self._replicas)[:, None] == self._replica()
        [rows] = all_reduce(tf.distribute.ReduceOp.SUM, [tf.where(row, own, 0.0)])
        return rows

    def _replica_scatter(self, rows):
        sizes = [variable.shape.num_elements() for variable in self._variables]
        parts = tf.split(rows[self._replica()], sizes)
        self._assign(
            [tf.reshape(part, v.shape) for part, v in zip(parts, self._variables, strict=True)]
        )

    def _replica(self):
        return tf.distribute.get_replica_context().replica_id_in_sync_group

    def _assign(self, values):
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)


class Recomputation:
    """Recomputes BN statistics, as means over training batches, for the weights to evaluate.

    Moving averages lag behind the weights, and averaged weights have no statistics of their own.
    Source: Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021), section 3.

    Args:
        state: its evaluated statistics are replaced.
        info: gives the normalization of images.
        strategy: gives the replicas.
    """

    def __init__(self, state: TrainState, info: DatasetInfo, strategy: tf.distribute.Strategy):
        self._trainable, non_trainable = state.evaluated()
        self._model, self._strategy = state.model, strategy
        self._normalize = info.normalize
        # States of random layers are integers.
        self._chosen = [variable.dtype.is_floating for variable in non_trainable]
        self._all = non_trainable
        self._statistics = [v for v, c in zip(non_trainable, self._chosen, strict=True) if c]
        self._updated = tf.function(self._run)

    def __call__(self, batches: Iterator, count: int) -> None:
        """Replaces the statistics of each replica by their mean over its next batches.

        Args:
            batches: distributed iterator over (images, labels).
            count: number of batches, above 0.
        """
        # A layer returns momentum * old + (1 - momentum) * batch: its results from zeros and
        # from ones differ by its momentum.
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
                # A variable that the call did not change is no statistic.
                is_statistic = weight > np.float32(1e-6)
                mean = total / tf.where(is_statistic, weight, 1) / tf.cast(count, total.dtype)
                variable.assign(tf.where(is_statistic, mean, variable))

        self._strategy.run(replica_assign, args=(sums, zeros, ones))
