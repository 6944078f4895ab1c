"""The max-pooling of the ImageNet stem."""

import keras


@keras.saving.register_keras_serializable(package="keras_preact")
class SymmetricMaxPooling2D(keras.layers.MaxPooling2D):
    """Max-pooling padded by one pixel on each side, as in the authors' Torch code.

    Args:
        pool_size: an odd number of pixels, 3 by default.
        strides: pixels between outputs, 2 by default.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), channels).
    """

    def __init__(self, pool_size: int = 3, strides: int = 2, **kwargs):
        fixed = {"padding": "valid", "data_format": "channels_last"}
        super().__init__(pool_size, strides, **{**kwargs, **fixed})
        self.pad_pixels = (self.pool_size[0] - 1) // 2

    def call(self, x):
        # Repeating the edge cannot change a maximum, so it serves as padding by minus
        # infinity, which integer arithmetic does not have. Zeros would win over
        # negative values: the signal is not yet rectified here.
        for _ in range(self.pad_pixels):
            x = keras.ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
        return super().call(x)

    def compute_output_shape(self, input_shape):
        batch, *sizes, channels = input_shape
        sizes = [None if size is None else size + 2 * self.pad_pixels for size in sizes]
        return super().compute_output_shape((batch, *sizes, channels))
