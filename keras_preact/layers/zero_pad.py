"""The parameter-free projection: subsample, then zero channels."""

import keras

PROJECTIONS = ("convolution", "zero_pad")


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
