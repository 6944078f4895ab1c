"""The training loss: cross-entropy, with label smoothing and mixup where they are wanted."""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float = 0.0) -> tf.Tensor:
    """The cross-entropy of each image, in nats.

    Args:
        logits: float32 (batch, classes).
        labels: int32 (batch,).
        smoothing: share of the label that is spread over all classes alike; source:
            Szegedy et al., "Rethinking the Inception Architecture" (2016), section 7.

    Returns:
        float32 (batch,).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    if not smoothing:
        return losses
    uniform = -tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
    return (1 - smoothing) * losses + smoothing * uniform


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """float32 (batch,): 1 where the likeliest class is the label's, else 0."""
    predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.cast(predicted == labels, tf.float32)


def mixing_weight(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """The weight of the first of two mixed images: Beta(alpha, alpha), a float32 scalar.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018): one weight
    for a batch; each image is mixed with its mirror place in the batch.

    Args:
        alpha: above 0.
        seed: int32 (2,).
    """
    # Gamma(alpha) is Gamma(alpha + 1) times U ** (1 / alpha), in logarithms, because those of
    # a small alpha are smaller than float32 can be.
    gammas = tf.random.stateless_gamma([2], seed, alpha + 1)
    uniforms = 1 - tf.random.stateless_uniform(
        [2], tf.random.experimental.stateless_fold_in(seed, 1)
    )
    logarithms = tf.math.log(gammas) + tf.math.log(uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def mix(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """weight * values + (1 - weight) * values in reverse order, along the first axis."""
    return weight * values + (1 - weight) * tf.reverse(values, [0])
