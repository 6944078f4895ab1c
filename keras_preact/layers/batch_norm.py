"""Batch normalization on TensorFlow's fused kernel, accurate under XLA as well."""

import contextlib
import contextvars
from collections.abc import Iterator

import keras
import tensorflow as tf

# Has no public name.
from tensorflow.python.framework.config import is_op_determinism_enabled

from keras_preact.layers import synchronized
from keras_preact.layers.quick_layer import QuickLayer, assign
from keras_preact.layers.quick_variables import ones, zeros

FUSED_DTYPES = ("float32", "bfloat16", "float16")

# Every fourth pixel in both directions, 1/16 of all: their mean is within four standard
# deviations of the mean, whatever the images.
_SAMPLE_STRIDE = 4

# A float32 with these bits set at most is a number of the precision.
_BITS = {"float32": -1, "float16": -(2**13), "bfloat16": -(2**16)}

_compiles = contextvars.ContextVar("compiles", default=None)


@contextlib.contextmanager
def traced_for_xla(compiles: bool | None) -> Iterator[None]:
    """Tells BN whether XLA compiles the functions traced within this context.

    BN is right without it: a function traced outside of `jit_compile=True` then finds out
    each time it runs, which costs about 1 % of a training step on a CPU, and a few seconds
    at the first step of a deep net.

    Args:
        compiles: False promises that no function compiled by XLA calls one traced here. None:
            unknown, as without the context.
    """
    token = _compiles.set(compiles)
    try:
        yield
    finally:
        _compiles.reset(token)


def is_traced_for_xla() -> bool | None:
    """Whether XLA compiles the calling code; None if both may happen to its trace."""
    if tf.executing_eagerly():
        return False
    if tf.__internal__.get_enclosing_xla_context() is not None:
        return True
    return _compiles.get()


@keras.saving.register_keras_serializable(package="keras_preact")
class BatchNormalization(QuickLayer):
    """Normalizes each channel of (batch, height, width, channels) images.

    Equals `keras.layers.BatchNormalization` on the channel axis, but calls
    `FusedBatchNormV3`, which Keras 3 never does. Parameters, statistics and arithmetic
    are float32 whatever the precision of the images. Images in float64, for which the
    kernel does not exist, are normalized by plain operations and stay float64.

    XLA computes the variance of the kernel's input as E[x^2] - E[x]^2, which is 0.8 % off
    where the mean is 100 standard deviations, and NaN at 1,000. Where `jit_compile=True`
    reaches the layer, each channel is therefore moved close to 0 first; not so under
    `tf.config.optimizer.set_jit`, which compiles operations unseen.

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

    Attributes:
        keeps_statistics: whether a training step normalizes with the moving statistics too, and
            leaves them as they are, while gamma and beta may learn. False at first, and not
            saved with a model. A function that was traced before keeps to what was set then.

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
        self.keeps_statistics = False

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
        self.gamma = self.add_weight(name="gamma", initializer=ones, **options)
        self.beta = self.add_weight(name="beta", initializer=zeros, **options)
        options["trainable"] = False
        self.moving_mean = self.add_weight(name="moving_mean", initializer=zeros, **options)
        self.moving_variance = self.add_weight(name="moving_variance", initializer=ones, **options)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        normalize = _fused if x.dtype.name in FUSED_DTYPES else unfused
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        # As in Keras, a frozen layer normalizes with its moving statistics.
        if not (training and self.trainable) or self.keeps_statistics:
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

    def load_own_variables(self, store):
        self._check_load_own_variables(store)
        assign(store, [self.gamma, self.beta, self.moving_mean, self.moving_variance])

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "synchronized": self.synchronized,
        }


def bn_layers(layer: keras.layers.Layer) -> list[BatchNormalization]:
    """Returns the BN layers of a model or of a unit, in order."""
    return [part for part in layer._flatten_layers() if isinstance(part, BatchNormalization)]


def _fused(x, gamma, beta, mean, variance, epsilon):
    """(y, mean, biased variance) by the fused kernel; batch statistics where mean is None."""
    training = mean is None
    if not training and _refuses_gradient():
        return unfused(x, gamma, beta, mean, variance, epsilon)
    dtype, shift, compiles = x.dtype, None, is_traced_for_xla()
    if training and compiles is not False:
        # XLA converts while it reads. TensorFlow would write a copy.
        x = tf.cast(x, tf.float32) if compiles else x
        x, shift = _moved(x, gamma, compiles)
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
    mean = outputs.batch_mean if shift is None else outputs.batch_mean + shift
    # The kernel reports the unbiased variance; Keras averages the biased one.
    count = tf.cast(tf.size(x) / tf.size(gamma), tf.float32)
    biased = outputs.batch_variance * (tf.maximum(count - 1, 1) / count)
    return tf.cast(outputs.y, dtype), mean, biased


def _refuses_gradient():
    """Whether the kernel has no gradient for given statistics: on GPUs, if deterministic."""
    return is_op_determinism_enabled() and bool(tf.config.list_physical_devices("GPU"))


def _moved(x, gamma, compiles):
    """(x - shift, float32 shift) where XLA compiles the calling function, else (x, 0).

    A function may be traced once and then be called both from functions that XLA compiles
    and from others. If it may, the graph itself decides: TensorFlow runs DeviceIndex as the
    number of a device, XLA compiles it into a number beyond the last.
    """

    def moved():
        sample = tf.cast(x[:, ::_SAMPLE_STRIDE, ::_SAMPLE_STRIDE], tf.float32)
        shift = tf.bitcast(tf.reduce_mean(sample, axis=[0, 1, 2]), tf.int32)
        # Without the bits that x.dtype lacks: XLA drops casts to it and back, in one use of
        # the shift but not in another.
        shift = tf.bitcast(tf.bitwise.bitwise_and(shift, _BITS[x.dtype.name]), tf.float32)
        return x - tf.cast(shift, x.dtype), shift

    def unmoved():
        return tf.identity(x), tf.zeros_like(gamma)

    @tf.custom_gradient
    def choose(_):
        if compiles:
            chosen = moved()
        else:
            device = tf.raw_ops.DeviceIndex(device_names=["CPU", "GPU"])
            chosen = tuple(tf.switch_case(device, [unmoved, unmoved], default=moved))
        # BN removes every mean, so its output does not depend on the shift.
        return chosen, lambda upstream, _: upstream

    return choose(x)


def unfused(x, gamma, beta, mean, variance, epsilon):
    """The same in plain operations, in float32 or, for float64 images, in float64."""
    dtype = x.dtype
    x = x if dtype == tf.float64 else tf.cast(x, tf.float32)
    if mean is None:
        mean, variance = tf.nn.moments(x, axes=[0, 1, 2])
    mean, variance, gamma, beta = (tf.cast(v, x.dtype) for v in (mean, variance, gamma, beta))
    y = (x - mean) * tf.math.rsqrt(variance + epsilon) * gamma + beta
    return tf.cast(y, dtype), mean, variance
