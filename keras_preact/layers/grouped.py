"""Grouped convolutions in forms whose gradient TensorFlow computes, and fast."""

import functools
import types

import keras
import tensorflow as tf

from keras_preact.layers.batch_norm import is_traced_for_xla

# Input channels of a convolution that computes several groups. Fewer leave a CPU's vector units
# idle, more compute too many zeros: ResNeXt's 32 groups of 4 channels, 14x14 pixels, 16 images,
# forward and backward under XLA: 33 ms at 16, 42 at 32, 74 without blocks.
_BLOCK_CHANNELS = 16


def convolve(
    images: tf.Tensor,
    kernel: tf.Tensor,
    strides: tuple[int, int],
    padding: str,
    dilation_rate: tuple[int, int],
) -> tf.Tensor:
    """Returns a convolution whose output channels each read one group of input channels.

    TensorFlow has such a convolution, but on a CPU its gradient needs oneDNN, and XLA takes
    hundreds of times as long. There it is several convolutions of a few groups each, whose kernels
    are zero between groups.

    Args:
        images: (batch, height, width, channels).
        kernel: (height, width, channels / groups, filters).
        strides: pixels between outputs.
        padding: "same" or "valid", as TensorFlow's.
        dilation_rate: pixels between the taps of the kernel.
    """
    convolution = functools.partial(
        tf.nn.convolution,
        strides=strides,
        padding=padding.upper(),
        data_format="NHWC",
        dilations=dilation_rate,
    )
    if _computes_groups(images.dtype.name):
        return convolution(images, kernel)
    channels = kernel.shape[2]
    groups = images.shape[-1] // channels
    most = max(1, _BLOCK_CHANNELS // channels)
    together = max(n for n in range(1, min(most, groups) + 1) if groups % n == 0)
    parts = zip(
        tf.split(images, groups // together, axis=-1),
        tf.split(kernel, groups // together, axis=-1),
        strict=True,
    )
    return tf.concat([convolution(x, _block_diagonal(k, together)) for x, k in parts], axis=-1)


def use_in_keras_layers(layer: keras.layers.Layer) -> None:
    """Makes the grouped Conv2D layers of Keras in a layer or a model compute as `convolve` does.

    Keras compiles each of them with XLA, which takes seconds on a CPU and is missing in servers.
    """
    for part in layer._flatten_layers():
        is_plain = (
            isinstance(part, keras.layers.Conv2D)
            and type(part).convolution_op is keras.layers.Conv2D.convolution_op
        )
        if is_plain and part.groups > 1 and part.data_format == "channels_last":
            part.convolution_op = types.MethodType(_convolution_of, part)


def _convolution_of(layer, images, kernel):
    return convolve(images, kernel, layer.strides, layer.padding, layer.dilation_rate)


def _block_diagonal(kernel, groups):
    """The kernel (height, width, groups * channels, filters) that is zero between groups."""
    if groups == 1:
        return kernel
    channels, filters = kernel.shape[2:]
    own = tf.range(groups * channels)[:, None] // channels
    mask = tf.equal(own, tf.range(filters)[None] // (filters // groups))
    return tf.tile(kernel, [1, 1, groups, 1]) * tf.cast(mask, kernel.dtype)


def _computes_groups(dtype):
    """Whether TensorFlow's own grouped convolution, with its gradient, suits the calling code."""
    # A graph cannot ask which device it runs on without control flow around every convolution.
    if tf.config.get_visible_devices("GPU"):
        return True
    return is_traced_for_xla() is False and _has_gradient_on_cpu(dtype)


@functools.cache
def _has_gradient_on_cpu(dtype):
    """Tries whether this CPU computes the gradient of a grouped convolution."""
    options = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    with tf.init_scope(), tf.device("CPU:0"):
        # Tapes record nothing in this scope.
        images, kernel = tf.ones([2, 5, 5, 4], dtype), tf.ones([3, 3, 2, 4], dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=images.shape, filter=kernel, out_backprop=images, **options
            )
            tf.raw_ops.Conv2DBackpropFilter(
                input=images, filter_sizes=kernel.shape, out_backprop=images, **options
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True
