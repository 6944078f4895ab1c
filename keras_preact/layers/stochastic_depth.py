"""Stochastic depth: residuals that some images skip in training."""

import keras
import tensorflow as tf

from keras_preact.layers.shortcuts import NoShortcut, Shortcut


@keras.saving.register_keras_serializable(package="keras_preact")
class StochasticDepth(keras.layers.Layer):
    """Sets the residual of each image to zero with probability `rate`, in training.

    The residuals that are kept are divided by 1 - rate, so that inference changes
    nothing. The paper drops a unit for a whole mini-batch and multiplies by 1 - rate
    at inference instead: the expectation of the residual relative to inference is the
    same, and its gradient varies less from step to step.

    Args:
        rate: the share of images whose residual is dropped, at least 0 and below 1.

    Input and output shape: (batch, height, width, channels).

    Raises:
        ValueError: if rate is outside its range.

    Source: "Deep Networks with Stochastic Depth" (Huang et al., 2016), section 3.
    """

    # Where one loop computes several units, it lends each its own rate, a float64 tensor.
    varies_in_loops = ("rate",)

    def __init__(self, rate: float, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(rate)

    def build(self, input_shape):
        # Here and not in the constructor, so that its state is named after the unit.
        self.seed_generator = keras.random.SeedGenerator(name="seed")

    def call(self, residual: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if not training:
            return residual
        shape = (keras.ops.shape(residual)[0], 1, 1, 1)
        # In float32: a draw in bfloat16 has only 128 values, too few for small rates.
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        kept = keras.ops.cast(draw >= keras.ops.cast(self.rate, "float32"), residual.dtype)
        return residual * (kept * keras.ops.cast(1 / (1 - self.rate), residual.dtype))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


def check_rate(rate: float, shortcut: Shortcut | None = None) -> float:
    """Returns rate, or raises a ValueError.

    Args:
        rate: received as `stochastic_depth_rate`.
        shortcut: of the unit.
    """
    if not 0 <= rate < 1:
        raise ValueError(
            "stochastic_depth_rate must be at least 0 and below 1. "
            f"Received: stochastic_depth_rate={rate}"
        )
    if rate and isinstance(shortcut, NoShortcut):
        raise ValueError(
            "stochastic_depth_rate must be 0 with shortcut='none', where nothing is left of an "
            f"image whose residual is dropped. Received: stochastic_depth_rate={rate}"
        )
    return rate
