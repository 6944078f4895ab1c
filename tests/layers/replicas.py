"""A batch normalization layer on two replicas, on one device, and in NumPy."""

import numpy as np
import tensorflow as tf

from keras_preact.layers import BatchNormalization

CHANNELS = 5
NAMES = ("y", "x", "gamma", "beta", "moving_mean", "moving_variance")


def images(mean=3, std=2):
    """Images in float64, each with its own mean, so that replicas differ."""
    rng = np.random.default_rng(0)
    of_image = rng.normal(size=(8, 1, 1, CHANNELS))
    return mean + std * (of_image + rng.normal(size=(8, 6, 7, CHANNELS)))


def upstream():
    """Gradients of y, far from summing to zero on either replica."""
    return np.random.default_rng(2).normal(0.5, 1, size=(8, 6, 7, CHANNELS))


def made(**arguments):
    """A layer with gamma, beta and moving statistics far from their initial values."""
    layer = BatchNormalization(**arguments)
    layer.build((None, 6, 7, CHANNELS))
    rng = np.random.default_rng(1)
    for variable in layer.variables:
        variable.assign(rng.uniform(0.5, 2, CHANNELS))
    return layer


def forward_and_backward(layer, x, upstream):
    """y and the gradients of x, gamma and beta."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    variables = [layer.gamma.value, layer.beta.value]
    return y, *tape.gradient(y, [x, *variables], output_gradients=upstream)


def float64(x):
    return tf.cast(x, "float64").numpy()


def distributed(strategy, values, shares, dtype):
    first, _ = shares
    parts = [tf.constant(part, dtype) for part in (values[:first], values[first:])]
    return strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )


def on_two_replicas(strategy, layer, x, upstream, shares):
    """The values of `NAMES` for the global batch; gradients of gamma and beta are sums."""
    dtype = layer.compute_dtype
    values = [distributed(strategy, v, shares, dtype) for v in (x, upstream)]
    step = tf.function(
        lambda *values: strategy.run(lambda *own: forward_and_backward(layer, *own), values)
    )
    results = [
        [float64(part) for part in strategy.experimental_local_results(result)]
        for result in step(*values)
    ]
    y, dx, dgamma, dbeta = results
    return [
        np.concatenate(y),
        np.concatenate(dx),
        sum(dgamma),
        sum(dbeta),
        *(of_replicas(strategy, getattr(layer, name))[0] for name in NAMES[4:]),
    ]


def of_replicas(strategy, variable):
    return [v.numpy() for v in strategy.experimental_local_results(variable.value)]


def on_one_device(layer, x, upstream):
    tensors = [tf.constant(v, layer.compute_dtype) for v in (x, upstream)]
    results = forward_and_backward(layer, *tensors)
    return [float64(result) for result in (*results, layer.moving_mean, layer.moving_variance)]


def in_numpy(layer, x, upstream):
    """The same from the definition, for values rounded to the layer's precision."""
    x, upstream = (float64(tf.constant(v, layer.compute_dtype)) for v in (x, upstream))
    gamma, beta, moving_mean, moving_variance = (float64(v) for v in layer.variables)
    axes = (0, 1, 2)
    mean, variance = x.mean(axes), x.var(axes)
    normalized = (x - mean) / np.sqrt(variance + 1e-5)
    dgamma, dbeta = (upstream * normalized).mean(axes), upstream.mean(axes)
    dx = gamma / np.sqrt(variance + 1e-5) * (upstream - dbeta - normalized * dgamma)
    count = x.size / CHANNELS
    return [
        normalized * gamma + beta,
        dx,
        dgamma * count,
        dbeta * count,
        0.9 * moving_mean + 0.1 * mean,
        0.9 * moving_variance + 0.1 * variance,
    ]
