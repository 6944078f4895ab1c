"""Many tensors in one all-reduce."""

from collections.abc import Sequence

import tensorflow as tf


def all_reduce(
    operation: tf.distribute.ReduceOp, values: Sequence[tf.Tensor | tf.Variable]
) -> list[tf.Tensor]:
    """Sums or means of each of the values over all replicas, exchanged in a row.

    To be called in a replica context.

    Args:
        operation: SUM or MEAN.
        values: of one dtype and of known shapes.
    """
    row = tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)
    row = tf.distribute.get_replica_context().all_reduce(operation, row)
    parts = tf.split(row, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]
