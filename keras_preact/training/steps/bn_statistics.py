"""BN statistics for an evaluation: averaged over replicas, or recomputed."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.steps.train_state import NO_STATISTICS, TrainState


class ReplicaStatistics:
    """The BN statistics of each replica, and their averages.

    Every worker must call each method, as all values are exchanged in one all-reduce.

    Args:
        state: of the run.
        strategy: gives the replicas.
    """

    def __init__(self, state: TrainState, strategy: tf.distribute.Strategy):
        self._state, self._strategy = state, strategy
        self._replicas = strategy.num_replicas_in_sync
        self._differ = self._replicas > 1 and bool(state.statistics.shapes)
        self._merge_all = tf.function(lambda: strategy.run(self._replica_merge))
        self._gather_all = tf.function(lambda: strategy.run(self._replica_gather))
        self._scatter_all = tf.function(lambda rows: strategy.run(self._replica_scatter, (rows,)))

    def merge(self) -> None:
        """Sets the statistics of every replica to their mean over replicas."""
        if self._differ:
            self._merge_all()

    def gather(self) -> np.ndarray:
        """Returns the statistics of each replica: float32 (replicas, values); else (0, 0)."""
        if not self._differ:
            return NO_STATISTICS
        rows = self._strategy.experimental_local_results(self._gather_all())[0].numpy()
        return np.stack([self._state.statistics_to_values(row) for row in rows])

    def scatter(self, values: np.ndarray) -> None:
        """Sets the statistics to values from `gather`, if they are of as many replicas."""
        if self._differ and len(values) == self._replicas:
            rows = np.stack([self._state.statistics_from_values(each) for each in values])
            self._scatter_all(tf.constant(rows))

    def _own(self):
        rows = self._state.rows
        return tf.concat([rows.statistics, rows.average_statistics], axis=0)

    def _replica_merge(self):
        context = tf.distribute.get_replica_context()
        self._assign(context.all_reduce(tf.distribute.ReduceOp.MEAN, self._own()))

    def _replica_gather(self):
        # Adding zeros is exact; not every strategy has an all-gather in replica context.
        context = tf.distribute.get_replica_context()
        is_own = tf.range(self._replicas) == context.replica_id_in_sync_group
        own = tf.where(is_own[:, None, None], self._own(), 0.0)
        return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

    def _replica_scatter(self, rows):
        self._assign(rows[tf.distribute.get_replica_context().replica_id_in_sync_group])

    def _assign(self, row):
        rows, lines = self._state.rows, self._state.statistics.shape[0]
        rows.statistics.assign(row[:lines])
        rows.average_statistics.assign(row[lines:])


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
        self._state, self._strategy, self._normalize = state, strategy, info.normalize
        self._weights, self._statistics = state.evaluated()
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
        self._assign(sums, zeros, ones, tf.constant(float(count)))

    def _run(self, images, labels, old):
        def replica_run(images):
            weights, statistics = map(tf.convert_to_tensor, (self._weights, self._statistics))
            others = self._state.rows.read().others
            values = self._state.values(weights, tf.zeros_like(statistics) + old, others)
            inputs = self._normalize(images)
            _, changed = self._state.model.stateless_call(*values, inputs, training=True)
            return self._state.split(changed)[0]

        return self._strategy.run(replica_run, args=(images,))

    @tf.function
    def _add(self, first, second):
        return self._strategy.run(tf.add, (first, second))

    @tf.function
    def _assign(self, sums, zeros, ones, count):
        def replica_assign(sums, zeros, ones):
            weight = 1 - (ones - zeros)
            # A variable that the call did not change is no statistic.
            is_statistic = weight > np.float32(1e-6)
            mean = sums / tf.where(is_statistic, weight, 1) / count
            self._statistics.assign(tf.where(is_statistic, mean, self._statistics))

        self._strategy.run(replica_assign, args=(sums, zeros, ones))
