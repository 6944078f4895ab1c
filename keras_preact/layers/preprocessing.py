"""From an image file to the input of a network, and from its logits to probabilities."""

import dataclasses
import math

import keras
import tensorflow as tf

from keras_preact.support.choices import one_of

INTERPOLATIONS = ("bilinear", "bicubic")


@keras.saving.register_keras_serializable(package="keras_preact")
@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How images become the input of a network, and the names of its classes.

    An image file is decoded to 0 to 255, resized until it just covers `image_shape` times
    `resize_ratio`, cropped at its centre, and normalized: (image - mean) / std.

    Args:
        image_shape: (height, width, channels).
        mean: of each channel, in 0 to 255.
        std: standard deviation of each channel, likewise.
        resize_ratio: at least 1, which crops as little as possible; elsewhere often given as
            its inverse, a "crop fraction".
        interpolation: "bilinear" or "bicubic", both antialiased.
        class_names: by label; empty if they are not known.
        multi_label: whether an image may be of several classes, or none: each class then has a
            probability of its own.
        temperature: divides the logits, so that probabilities are calibrated; source: Guo et al.,
            "On Calibration of Modern Neural Networks" (2017).

    Raises:
        ValueError: if a value is outside its rule.
    """

    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_ratio: float = 1.0
    interpolation: str = "bilinear"
    class_names: tuple[str, ...] = ()
    multi_label: bool = False
    temperature: float = 1.0

    def __post_init__(self):
        # Keras saves tuples as lists.
        for name in ("image_shape", "mean", "std", "class_names"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        shape = self.image_shape
        if len(shape) != 3 or not all(isinstance(side, int) and side > 0 for side in shape):
            raise ValueError(
                "image_shape must be (height, width, channels), each a whole number above 0. "
                f"Received: image_shape={shape}"
            )
        for name, least in (("mean", -math.inf), ("std", 0)):
            values = getattr(self, name)
            in_range = all(math.isfinite(value) and value >= least for value in values)
            if len(values) != shape[-1] or not in_range:
                raise ValueError(
                    f"{name} must have a finite number{', at least 0,' * (not least)} for each of "
                    f"{shape[-1]} channels. Received: {name}={values}"
                )
        if not (math.isfinite(self.resize_ratio) and self.resize_ratio >= 1):
            raise ValueError(
                f"resize_ratio must be at least 1. Received: resize_ratio={self.resize_ratio}"
            )
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise ValueError(
                f"temperature must be above 0. Received: temperature={self.temperature}"
            )

    def normalize(self, images: tf.Tensor) -> tf.Tensor:
        """Returns images in 0 to 255, of any dtype, as the float32 input of the network."""
        # Constants are made where they are used: each replica then has its own.
        mean, std = (tf.constant(values, tf.float32) for values in (self.mean, self.std))
        return (tf.cast(images, tf.float32) - mean) / std

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the probability of each class from logits, both float32 (batch, classes).

        They add up to 1 unless `multi_label`.
        """
        if self.temperature != 1:
            logits = logits / self.temperature
        return tf.sigmoid(logits) if self.multi_label else tf.nn.softmax(logits)

    def replace(self, **changes) -> "Preprocessing":
        """Returns a copy with other values."""
        return dataclasses.replace(self, **changes)

    def with_channels(self, channels: int) -> "Preprocessing":
        """Returns a copy for images of other channels.

        Grey images take the mean over the channels, others repeat the channels in turn, as
        `models.channels.adapt_channels` does with the kernel of the stem.
        """
        if channels == self.image_shape[-1]:
            return self

        def adapted(values):
            if channels == 1:
                return (sum(values) / len(values),)
            return tuple(values[channel % len(values)] for channel in range(channels))

        shape = (*self.image_shape[:2], channels)
        return self.replace(image_shape=shape, mean=adapted(self.mean), std=adapted(self.std))

    def get_config(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "Preprocessing":
        return cls(**config)
