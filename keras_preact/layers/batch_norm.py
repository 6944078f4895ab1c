"""Batch normalization on TensorFlow's fused kernel."""

import keras
import tensorflow as tf

from keras_preact.layers import synchronized

FUSED_DTYPES = ("float32", "bfloat16", "float16")


@keras.saving.register_keras_serializable(package="keras_preact")
class BatchNormalization(keras.layers.Layer):
    """Normalizes each channel of (batch, height, width, channels) images.

    Equals `keras.layers.BatchNormalization` on the channel axis, but calls
    `FusedBatchNormV3`, which Keras 3 never does. Parameters, statistics and arithmetic
    are float32 whatever the precision of the images. Images in float64, for which the
    kernel does not exist, are normalized by plain operations and stay float64.

    Args:
        momentum: weight of the old moving statistics at each update. The paper's
            0.9 by default, where Keras has 0.99.
        epsilon: added to the variance. The paper's 1e-5, where Keras has 1e-3.
        synchronized: whether the statistics of a training step are those of the
            images of all replicas of a `tf.distribute` strategy, exchanged in one
            all-reduce forward and one backward; the moving statistics are then the
            same on every replica. May also be set as an attribute. The replica
            function must call the layer outside of any inner `tf.function` or control
            flow, from where TensorFlow cannot exchange anything between replicas.

    Input and output shape: (batch, height, width, channels).

    Raises:
        ValueError: if the input is not of rank 4 or its channel count is unknown.
    """

    def __init__(
        self,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        synchronized: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1. Received: momentum={momentum}")
        if not epsilon > 0:
            raise ValueError(f"epsilon must be above 0. Received: epsilon={epsilon}")
        self.momentum = momentum
        self.epsilon = epsilon
        self.synchronized = synchronized

    def build(self, input_shape):
        if len(input_shape) != 4 or input_shape[-1] is None:
            raise ValueError(
                "BatchNormalization needs images (batch, height, width, channels) with a "
                f"known number of channels. Received: input_shape={tuple(input_shape)}"
            )
        options = {
            "shape": (input_shape[-1],),
            # The kernel takes float32 here in every precision; float64 has no kernel.
            "dtype": "float64" if self.compute_dtype == "float64" else "float32",
            "autocast": False,
        }
        self.gamma = self.add_weight(name="gamma", initializer="ones", **options)
        self.beta = self.add_weight(name="beta", initializer="zeros", **options)
        options["trainable"] = False
        self.moving_mean = self.add_weight(name="moving_mean", initializer="zeros", **options)
        self.moving_variance = self.add_weight(
            name="moving_variance", initializer="ones", **options
        )

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        normalize = _fused if x.dtype.name in FUSED_DTYPES else _unfused
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        # As in Keras, a frozen layer normalizes with its moving statistics.
        if not (training and self.trainable):
            mean = tf.convert_to_tensor(self.moving_mean)
            variance = tf.convert_to_tensor(self.moving_variance)
            return normalize(x, gamma, beta, mean, variance, self.epsilon)[0]
        if self.synchronized and synchronized.replicas() > 1:
            y, mean, variance = synchronized.normalize(normalize, x, gamma, beta, self.epsilon)
        else:
            y, mean, variance = normalize(x, gamma, beta, None, None, self.epsilon)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return y

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }


def _fused(x, gamma, beta, mean, variance, epsilon):
    """(y, mean, biased variance) by the fused kernel; batch statistics where mean is None."""
    training = mean is None
    empty = tf.zeros([0], tf.float32)
    # The raw op, because tf.compat.v1.nn.fused_batch_norm raises epsilon to 1.001e-5.
    outputs = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=empty if training else mean,
        variance=empty if training else variance,
        epsilon=epsilon,
        exponential_avg_factor=1.0,
        is_training=training,
    )
    # The kernel reports the unbiased variance; Keras averages the biased one.
    count = tf.cast(tf.size(x) / tf.size(gamma), tf.float32)
    biased = outputs.batch_variance * (tf.maximum(count - 1, 1) / count)
    return outputs.y, outputs.batch_mean, biased


def _unfused(x, gamma, beta, mean, variance, epsilon):
    """The same in plain operations, in the precision of x."""
    if mean is None:
        mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
    mean, variance, gamma, beta = (tf.cast(v, x.dtype) for v in (mean, variance, gamma, beta))
    y = (x - mean) * tf.math.rsqrt(variance + epsilon) * gamma + beta
    return y, mean, variance
