"""The one convolution that these networks are made of."""

import keras


def he_normal() -> keras.initializers.Initializer:
    """N(0, sqrt(2 / (k * k * out))), untruncated: the initialization of the authors' code."""
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )


@keras.saving.register_keras_serializable(package="keras_preact")
class Conv2D(keras.layers.Conv2D):
    """A bias-free, He-initialized convolution, padded alike on both sides.

    TensorFlow's "same" pads a strided convolution of an even-sized image on the
    right and bottom only; the authors' Torch code pads (k - 1) / 2 on each side.

    Args:
        filters: number of output channels.
        kernel_size: an odd number of pixels, the same in both directions.
        strides: pixels between outputs, the same in both directions.
        use_bias: whether to add a bias, as gates do and convolutions do not.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        ValueError: if kernel_size is even.
    """

    def __init__(self, filters: int, kernel_size: int, strides: int = 1, **kwargs):
        # Keras saves both as pairs.
        kernel_size, strides = (
            v[0] if isinstance(v, (tuple, list)) else v for v in (kernel_size, strides)
        )
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd. Received: kernel_size={kernel_size}")
        defaults = {"use_bias": False, "kernel_initializer": he_normal()}
        fixed = {
            "padding": "same" if strides == 1 else "valid",
            "data_format": "channels_last",
        }
        super().__init__(filters, kernel_size, strides=strides, **{**defaults, **kwargs, **fixed})
        self.pad_pixels = 0 if strides == 1 else (kernel_size - 1) // 2

    def call(self, x):
        if not self.pad_pixels:
            return super().call(x)
        pad = (self.pad_pixels, self.pad_pixels)
        return super().call(keras.ops.pad(x, ((0, 0), pad, pad, (0, 0))))

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        sizes = [None if size is None else size + 2 * self.pad_pixels for size in sizes]
        return super().compute_output_shape((batch, *sizes, channels))
