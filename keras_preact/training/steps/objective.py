"""The training loss of a run: of mixed images, weighted by class and image."""

import dataclasses
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.config import TrainConfig
from keras_preact.training.steps.loss import (
    binary_cross_entropy,
    chosen,
    correct,
    cross_entropy,
    smoothed_targets,
)
from keras_preact.training.steps.mixing import Mixture


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


def make_objective(
    config: TrainConfig, info: DatasetInfo, class_weights: Mapping[str, float] | None = None
) -> Objective:
    """Makes the training loss of a run.

    Args:
        config: configuration of the run.
        info: tells whether images have several labels, and the order of the classes.
        class_weights: by name of the class; None for 1 each.

    Raises:
        ValueError: if the loss does not suit the labels.
    """
    weights = None
    if class_weights is not None:
        weights = np.array([class_weights[name] for name in info.class_names], np.float32)
    loss = chosen(config.loss, info.multi_label)
    if config.bce_target_threshold is not None and loss == "cross_entropy":
        raise ValueError(
            "bce_target_threshold needs loss='binary_cross_entropy'. Received: "
            f"bce_target_threshold={config.bce_target_threshold}, loss=None, and images with one "
            "label"
        )
    return Objective(
        loss, config.label_smoothing, config.bce_target_threshold, weights, info.multi_label
    )
