"""The losses of images: cross-entropy and binary cross-entropy."""

import tensorflow as tf

LOSSES = ("cross_entropy", "binary_cross_entropy")


def chosen(loss: str | None, multi_label: bool) -> str:
    """Returns the loss to train with.

    Args:
        loss: one of `LOSSES`; None for the one that suits the labels.
        multi_label: whether an image may be of several classes, or none.

    Raises:
        ValueError: if the loss does not suit the labels.
    """
    if multi_label and loss == "cross_entropy":
        raise ValueError(
            "loss must be binary_cross_entropy where an image may be of several classes: "
            "cross_entropy allows one. Received: loss='cross_entropy', and images with several "
            "labels. Leave it out"
        )
    return loss or ("binary_cross_entropy" if multi_label else "cross_entropy")


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


def binary_cross_entropy(
    logits: tf.Tensor, targets: tf.Tensor, positive_weights: tf.Tensor | None = None
) -> tf.Tensor:
    """Returns the binary cross-entropy of each image, in nats: the mean over its classes.

    Args:
        logits: float32 (batch, classes).
        targets: probability of each class, float32 (batch, classes).
        positive_weights: factor on the term of a class that is there, float32 (classes,).

    Returns:
        float32 (batch,).
    """
    if positive_weights is None:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
    else:
        losses = tf.nn.weighted_cross_entropy_with_logits(targets, logits, positive_weights)
    return tf.reduce_mean(losses, axis=-1)


def smoothed_targets(
    labels: tf.Tensor, classes: int, smoothing: float, multi_label: bool
) -> tf.Tensor:
    """Returns the probability of each class that an image is to have: float32 (batch, classes).

    Smoothing spreads its share of a single label over all classes. Of several labels, each moves
    towards 1/2, as in Keras' and timm's losses.

    Args:
        labels: int32 (batch,), or float32 (batch, classes) where there are several.
        classes: number of classes.
        smoothing: from 0 to 1.
        multi_label: whether there are several labels.
    """
    if multi_label:
        return labels * (1 - smoothing) + 0.5 * smoothing if smoothing else labels
    off = smoothing / classes
    return tf.one_hot(labels, classes, 1 - smoothing + off, off)


def correct(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns 1 for each image that is classified correctly, else 0: float32 (batch,).

    With one label, int32 (batch,), the likeliest class must be it. With several, float32
    (batch, classes), those classes must be the ones of a probability of at least 1/2.
    """
    if labels.shape.rank == 2:
        right = (logits >= 0) == (labels > 0.5)
        return tf.cast(tf.reduce_all(right, axis=-1), tf.float32)
    predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
    return tf.cast(predicted == labels, tf.float32)
