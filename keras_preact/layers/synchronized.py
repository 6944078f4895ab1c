"""Batch normalization with the statistics of the images of all replicas."""

from collections.abc import Callable

import tensorflow as tf


def replicas() -> int:
    """The number of replicas that run the calling code; 1 outside of a replica context."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def normalize(
    kernel: Callable, x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, epsilon: float
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Normalizes with the statistics of the global batch.

    Takes one all-reduce forward and one backward. Replicas may have different numbers of
    images. The gradient of x is that of the sum of all replicas' losses. Those of gamma
    and beta are of the replica's own images, to be summed over replicas like any
    weight's. No gradient flows through the returned statistics.

    Args:
        kernel: (x, gamma, beta, mean, variance, epsilon) -> (y, mean, biased
            variance), which takes the statistics of x where mean is None.
        x: (batch, height, width, channels).
        gamma: (channels,).
        beta: (channels,).
        epsilon: added to the variance.

    Returns:
        y like x; mean and biased variance (channels,), bit-identical on all replicas.

    Raises:
        RuntimeError: by TensorFlow, if called inside of a `tf.function` or of control
            flow within the replica function.

    Source: the gradient of "Batch Normalization" (Ioffe and Szegedy, 2015), section 3,
    with its sums over the global batch.
    """

    @tf.custom_gradient
    def of_all_replicas(x, gamma, beta):
        _, mean, variance = kernel(x, gamma, beta, None, None, epsilon)
        count = tf.cast(tf.size(x) / tf.size(gamma), mean.dtype)
        mean, variance, count = _combine(mean, variance, count)
        y, _, _ = kernel(x, gamma, beta, mean, variance, epsilon)

        def gradient(upstream, *_):
            with tf.GradientTape() as tape:
                tape.watch([x, gamma, beta])
                again, _, _ = kernel(x, gamma, beta, mean, variance, epsilon)
            # With the statistics held constant.
            dx, dgamma, dbeta = tape.gradient(again, [x, gamma, beta], output_gradients=upstream)
            sums = _all_reduce(tf.stack([dgamma, dbeta]))
            # Through the statistics: -scale * (sum of dgamma * normalized x + sum of dbeta),
            # which the kernel computes with these factors in place of gamma and beta.
            scale = gamma * tf.math.rsqrt(variance + epsilon) / count
            through_statistics, _, _ = kernel(
                x, -scale * sums[0], -scale * sums[1], mean, variance, epsilon
            )
            return dx + through_statistics, dgamma, dbeta

        return (y, mean, variance), gradient

    return of_all_replicas(x, gamma, beta)


def _combine(mean, variance, count):
    """Mean, biased variance and count of all replicas' images, from one replica's.

    Every replica receives the statistics of each, and adds the variance between their
    means to the mean of their variances (Chan, Golub and LeVeque, 1979). Summing
    squares instead would lose the variance of a channel whose mean is far from 0: of
    mean 100 and variance 1, four of float32's seven digits.
    """
    channels = mean.shape[0]
    rows = _gather(tf.concat([mean, variance, [count]], axis=0))
    means, variances, counts = tf.split(rows, [channels, channels, 1], axis=1)
    total = tf.reduce_sum(counts)
    shares = counts / total

    def average(values):
        # A replica without images has no statistics: NaN times 0 is 0 here.
        return tf.reduce_sum(tf.math.multiply_no_nan(values, shares), axis=0)

    mean = average(means)
    variance = average(variances) + average(tf.math.squared_difference(means, mean))
    return mean, variance, total


def _gather(row):
    """(replicas, n) from the (n,) of each, in one all-reduce.

    Gathering itself is not a collective of NCCL in `tf.distribute`. A sum in which
    each place has one summand that is not 0 is exact, whatever its order.
    """
    context = tf.distribute.get_replica_context()
    numbers = tf.range(context.num_replicas_in_sync)
    is_own = tf.equal(numbers, context.replica_id_in_sync_group)
    return _all_reduce(tf.where(is_own[:, None], row, tf.zeros_like(row)))


def _all_reduce(values):
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, values)
