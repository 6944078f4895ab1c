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
        self._merge_all = tf.function(lambda kept: strategy.run(self._replica_merge, (kept,)))
        self._gather_all = tf.function(lambda: strategy.run(self._replica_gather))
        self._scatter_all = tf.function(lambda rows: strategy.run(self._replica_scatter, (rows,)))

    def merge(self) -> None:
        """Sets the statistics of every replica to their mean over replicas.

        Those that steps leave as they are, the same on all replicas, are not touched: a mean of
        equal numbers may differ from them in the last bit.
        """
        if self._differ:
            kept = self._state.kept_statistics
            self._merge_all(kept if kept is None else tf.constant(kept))

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

    def _replica_merge(self, kept):
        context, own = tf.distribute.get_replica_context(), self._own()
        mean = context.all_reduce(tf.distribute.ReduceOp.MEAN, own)
        if kept is not None:
            others = own.shape[0] - kept.shape[0]
            ends = kept[:others] if self._state.averages_weights else tf.zeros([others, 1], bool)
            mean = tf.where(tf.concat([kept, ends], axis=0), own, mean)
        self._assign(mean)

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
    Statistics that steps leave as they are stay here, too.
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
            batches: distributed iterator over tuples whose first part is images.
            count: number of batches, above 0.
        """
        # A layer returns momentum * old + (1 - momentum) * batch: its results from zeros and
        # from ones differ by its momentum.
        zero, one, phase = tf.constant(0.0), tf.constant(1.0), self._state.phase
        first, *_ = next(batches)
        zeros, ones = self._updated(first, zero, phase), self._updated(first, one, phase)
        sums = zeros
        for _ in range(count - 1):
            sums = self._add(sums, self._updated(next(batches)[0], zero, phase))
        self._assign(sums, zeros, ones, tf.constant(float(count)))

    def _run(self, images, old, phase):
        # Traced anew for each phase, in which BN may keep other statistics.
        kept = self._state.kept_statistics

        def replica_run(images):
            weights, statistics = map(tf.convert_to_tensor, (self._weights, self._statistics))
            others = self._state.rows.read().others
            given = tf.zeros_like(statistics) + old
            if kept is not None:
                given = tf.where(kept, statistics, given)
            values = self._state.values(weights, given, others)
            inputs = self._normalize(images)
            _, changed = self._state.function(values, inputs, training=True, compiles=False)
            row = self._state.split(changed)[0]
            # As of a variable that the call does not change; see _assign.
            return row if kept is None else tf.where(kept, old, row)

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
