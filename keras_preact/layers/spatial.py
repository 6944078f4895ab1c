"""Convolution, max-pooling and zero padding, symmetric about the image as in Torch."""

import keras

from keras_preact.layers import grouped
from keras_preact.layers.quick_layer import QuickLayer, assign
from keras_preact.layers.quick_variables import quick_initializer


def he_normal() -> keras.initializers.Initializer:
    """N(0, sqrt(2 / (k * k * out))), untruncated: the initialization of the authors' code."""
    return keras.initializers.VarianceScaling(
        scale=2.0, mode="fan_out", distribution="untruncated_normal"
    )


@keras.saving.register_keras_serializable(package="keras_preact")
class Conv2D(QuickLayer, keras.layers.Conv2D):
    """A bias-free, He-initialized convolution, padded alike on both sides.

    TensorFlow's "same" pads a strided convolution of an even-sized image on the
    right and bottom only; the authors' Torch code pads (k - 1) / 2 on each side.

    Args:
        filters: number of output channels.
        kernel_size: an odd number of pixels, the same in both directions.
        strides: pixels between outputs, the same in both directions.
        groups: number of groups of channels; each output channel reads the input channels of its
            group, as in ResNeXt. With as many groups as channels it is a depthwise convolution.
        use_bias: whether to add a bias, as gates do and convolutions do not.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        ValueError: if kernel_size is even, or groups does not divide the channels and filters.
    """

    def __init__(
        self, filters: int, kernel_size: int, strides: int = 1, *, groups: int = 1, **kwargs
    ):
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
        options = {**defaults, **kwargs, **fixed}
        super().__init__(filters, kernel_size, strides=strides, groups=groups, **options)
        self.pad_pixels = 0 if strides == 1 else (kernel_size - 1) // 2

    def add_weight(self, *arguments, initializer=None, **options):
        initializer = quick_initializer(initializer)
        return super().add_weight(*arguments, initializer=initializer, **options)

    def load_own_variables(self, store):
        if self.lora_enabled or not self.built:
            super().load_own_variables(store)
            return
        self._check_load_own_variables(store)
        assign(store, [self._kernel, *([self.bias] if self.use_bias else [])])

    def convolution_op(self, inputs, kernel):
        if self.groups == 1:
            return super().convolution_op(inputs, kernel)
        return grouped.convolve(inputs, kernel, self.strides, self.padding, self.dilation_rate)

    def call(self, x):
        if not self.pad_pixels:
            return super().call(x)
        pad = (self.pad_pixels, self.pad_pixels)
        return super().call(keras.ops.pad(x, ((0, 0), pad, pad, (0, 0))))

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        sizes = [None if size is None else size + 2 * self.pad_pixels for size in sizes]
        return super().compute_output_shape((batch, *sizes, channels))


@keras.saving.register_keras_serializable(package="keras_preact")
class SymmetricMaxPooling2D(keras.layers.MaxPooling2D):
    """Max-pooling padded by one pixel on each side, as in the authors' Torch code.

    Args:
        pool_size: an odd number of pixels, 3 by default.
        strides: pixels between outputs, 2 by default.
        zero_padded: whether to pad with zeros, as in keras.applications, and not with the
            lowest number.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), channels).
    """

    def __init__(self, pool_size: int = 3, strides: int = 2, zero_padded: bool = False, **kwargs):
        fixed = {"padding": "valid", "data_format": "channels_last"}
        super().__init__(pool_size, strides, **{**kwargs, **fixed})
        self.zero_padded = zero_padded
        self.pad_pixels = (self.pool_size[0] - 1) // 2

    def call(self, x):
        # Repeating the edge cannot change a maximum, so it serves as padding by minus
        # infinity, which integer arithmetic does not have. Zeros would win over
        # negative values: the signal is not yet rectified here.
        mode = "constant" if self.zero_padded else "symmetric"
        for _ in range(self.pad_pixels):
            x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
        return super().call(x)

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        sizes = [None if size is None else size + 2 * self.pad_pixels for size in sizes]
        return super().compute_output_shape((batch, *sizes, channels))

    def get_config(self):
        return {**super().get_config(), "zero_padded": self.zero_padded}


@keras.saving.register_keras_serializable(package="keras_preact")
class ZeroPad(keras.layers.Layer):
    """Keeps every strides-th pixel and pads with zero channels, half on each side.

    Option A of the first paper, section 3.3, and its choice on CIFAR. Where the
    number of new channels is odd, the extra one comes last.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), filters).

    Raises:
        ValueError: if the input has more channels than `filters`.
    """

    def __init__(self, filters: int, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape):
        if input_shape[-1] > self.filters:
            raise ValueError(
                "projection='zero_pad' can only add channels; use projection='convolution' to "
                f"go from {input_shape[-1]} channels to {self.filters}."
            )

    def call(self, x):
        x = x[:, :: self.strides, :: self.strides, :]
        new = self.filters - x.shape[-1]
        return keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (new // 2, new - new // 2)))

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        sizes = [None if size is None else -(-size // self.strides) for size in sizes]
        return (batch, *sizes, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}
