"""The training loss: cross-entropy, with optional label smoothing and mixup."""

import tensorflow as tf


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
    gammas = tf.random.stateless_gamma([2], seed, alpha + 1)
    uniforms = 1 - tf.random.stateless_uniform(
        [2], tf.random.experimental.stateless_fold_in(seed, 1)
    )
    logarithms = tf.math.log(gammas) + tf.math.log(uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def mix(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mixes each element of a batch with its mirror: weight * x[i] + (1 - weight) * x[-1 - i]."""
    return weight * values + (1 - weight) * tf.reverse(values, [0])
