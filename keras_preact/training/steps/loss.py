"""The training loss: cross-entropy or binary cross-entropy, weighted by class and image."""

import dataclasses

import numpy as np
import tensorflow as tf

from keras_preact.training.steps.mixing import Mixture

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


@dataclasses.dataclass(frozen=True, eq=False)
class Objective:
    """The training loss of a run.

    An image counts as often as its own weight says, and with one label as its class's weight
    says, too. With several labels, the weight of a class is a factor on the terms of the images
    that have it. The loss is divided by the global batch size, whatever the weights: replicas
    and parts of a batch then add up to the same, and weights of mean 1 keep its scale.

    Args:
        loss: one of `LOSSES`.
        smoothing: label smoothing.
        target_threshold: of binary cross-entropy: targets above it become 1, others 0; None
            leaves them. Source: Wightman et al., "ResNet strikes back" (2021), section 3.1, whose
            training code has 0.2: both classes of a mixture are then there.
        class_weights: float32 (classes,); None for 1 each.
        multi_label: whether an image may be of several classes, or none.
    """

    loss: str = "cross_entropy"
    smoothing: float = 0.0
    target_threshold: float | None = None
    class_weights: np.ndarray | None = None
    multi_label: bool = False

    def sums(
        self,
        logits: tf.Tensor,
        labels: tf.Tensor,
        weights: tf.Tensor | None,
        mixture: Mixture | None,
        batch_size: int,
    ) -> tf.Tensor:
        """Returns loss and number of correct images, summed and divided: float32 (2,).

        Args:
            logits: float32 (batch, classes), of the mixed images.
            labels: int32 (batch,), or float32 (batch, classes) with several labels.
            weights: of the images, float32 (batch,); None for 1 each.
            mixture: of the batch; None if it is not mixed.
            batch_size: to divide by, the global one.
        """

        def against(labels, weights):
            losses = self._losses(logits, labels, weights)
            sums = tf.stack([tf.reduce_sum(losses), tf.reduce_sum(correct(logits, labels))])
            return sums / batch_size

        if mixture is None:
            return against(labels, weights)
        mirrored = None if weights is None else weights[::-1]
        share = mixture.labels
        sums = share * against(labels, weights) + (1 - share) * against(labels[::-1], mirrored)
        if self.target_threshold is None:
            return sums
        # Only losses that are linear in the targets can be mixed in their place.
        losses = self._thresholded(logits, labels, weights, share)
        return tf.stack([tf.reduce_sum(losses) / batch_size, sums[1]])

    def _losses(self, logits, labels, weights):
        """The weighted loss of each image."""
        if self.loss == "cross_entropy":
            losses = cross_entropy(logits, labels, self.smoothing)
        else:
            targets = self._targets(logits, labels)
            losses = binary_cross_entropy(logits, self._hard(targets), self._positive_weights())
        return self._weighted(losses, self._image_weights(labels, weights))

    def _thresholded(self, logits, labels, weights, share):
        targets, others = (self._targets(logits, each) for each in (labels, labels[::-1]))
        targets = self._hard(share * targets + (1 - share) * others)
        losses = binary_cross_entropy(logits, targets, self._positive_weights())
        own = self._image_weights(labels, weights)
        return self._weighted(
            losses, None if own is None else share * own + (1 - share) * own[::-1]
        )

    def _targets(self, logits, labels):
        return smoothed_targets(labels, logits.shape[-1], self.smoothing, self.multi_label)

    def _hard(self, targets):
        if self.target_threshold is None:
            return targets
        return tf.cast(targets > self.target_threshold, tf.float32)

    def _positive_weights(self):
        return self._of_classes() if self.multi_label else None

    def _of_classes(self):
        return None if self.class_weights is None else tf.constant(self.class_weights, tf.float32)

    def _image_weights(self, labels, weights):
        of_classes = None if self.multi_label else self._of_classes()
        if of_classes is None:
            return weights
        own = tf.gather(of_classes, labels)
        return own if weights is None else own * weights

    @staticmethod
    def _weighted(losses, weights):
        return losses if weights is None else losses * weights
