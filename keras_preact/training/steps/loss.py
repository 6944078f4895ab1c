"""The training loss: cross-entropy, with optional label smoothing and mixup."""

import math

import numpy as np
import tensorflow as tf

# Each is refused once in 20 times at most, all of them never.
_CANDIDATES = 16


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross-entropy of each image, in nats.

    Args:
        logits: float32 (batch, classes).
        labels: int32 (batch,).
        smoothing: share of the label spread evenly over all classes; source: Szegedy et al.,
            "Rethinking the Inception Architecture" (2016), section 7.

    Returns:
        float32 (batch,).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not smoothing:
        return losses
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * losses + smoothing * uniform


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each image whose likeliest class is its label, else 0: float32 (batch,)."""
    predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.cast(predicted == labels, tf.float32)


def mixing_weight(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws mixup's weight for a batch from Beta(alpha, alpha): a float32 scalar.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).

    Args:
        alpha: above 0.
        seed: int32 (2,).
    """
    # Gamma(alpha) = Gamma(alpha + 1) * U ** (1 / alpha); in logarithms, as small alphas would
    # underflow float32.
    uniforms = 1 - tf.random.stateless_uniform([2], _fold_in(seed, 1))
    logarithms = _log_gammas(alpha + 1, seed) + tf.math.log(uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def _log_gammas(shape, seed):
    """Draws the logarithms of two numbers from Gamma(shape), shape at least 1.

    XLA cannot compile `tf.random.stateless_gamma`.

    Source: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000).
    """
    d = shape - 1 / 3
    normals = tf.random.stateless_normal([2, _CANDIDATES], _fold_in(seed, 2))
    uniforms = 1 - tf.random.stateless_uniform([2, _CANDIDATES], _fold_in(seed, 3))
    cubes = (1 + normals / math.sqrt(9 * d)) ** 3
    logarithms = tf.math.log(tf.maximum(cubes, np.finfo(np.float32).tiny))
    is_low = tf.math.log(uniforms) < normals**2 / 2 + d * (1 - cubes + logarithms)
    accepted = tf.argmax((cubes > 0) & is_low, axis=1)
    return math.log(d) + tf.gather(logarithms, accepted, axis=1, batch_dims=1)


def _fold_in(seed, number):
    return tf.random.experimental.stateless_fold_in(seed, number)


def mix(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mixes each element of a batch with its mirror: weight * x[i] + (1 - weight) * x[-1 - i]."""
    return weight * values + (1 - weight) * tf.reverse(values, [0])
