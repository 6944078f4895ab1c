"""A ResNeXt unit, pre-activated, as a user would write it."""

import keras

from keras_preact.layers import BatchNormalization, Conv2D, Taps

GROUPS = 4


@keras.saving.register_keras_serializable("tests")
class ResNeXtUnit(keras.layers.Layer):
    """BN, ReLU and convolution three times, 1x1, 3x3 in groups and 1x1, beside the identity.

    Args:
        filters: of the grouped convolution; the unit returns twice as many.
        conv: makes the grouped convolution: (filters, kernel_size, strides, groups=) to a layer.
    """

    def __init__(self, filters, strides=1, first_in_network=False, conv=Conv2D, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.strides = filters, strides
        dtype = {"dtype": self.dtype_policy}
        self.bns = [BatchNormalization(name=f"bn{n}", **dtype) for n in (1, 2, 3)]
        self.convs = [
            Conv2D(filters, 1, name="conv1", **dtype),
            conv(filters, 3, strides, groups=GROUPS, name="conv2", **dtype),
            Conv2D(2 * filters, 1, name="conv3", **dtype),
        ]
        self.projection = Conv2D(2 * filters, 1, strides, name="projection", **dtype)

    def build(self, shape):
        self.matches = tuple(shape) == self.compute_output_shape(shape)
        if not self.matches:
            self.projection.build(shape)
        for bn, conv in zip(self.bns, self.convs, strict=True):
            bn.build(shape)
            conv.build(shape)
            shape = conv.compute_output_shape(shape)

    def call(self, x, training=None, return_taps=False):
        h = x if self.matches else self.projection(x)
        residual = x
        for bn, conv in zip(self.bns, self.convs, strict=True):
            residual = conv(keras.ops.relu(bn(residual, training=training)))
        y = h + residual
        return Taps(h, h, residual, y, y) if return_taps else y

    def compute_output_shape(self, shape):
        batch, *sizes, _ = shape
        sizes = (None if size is None else -(-size // self.strides) for size in sizes)
        return (batch, *sizes, 2 * self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "strides": self.strides}


def of_keras(filters, kernel_size, strides, **options):
    """The grouped convolution as Keras has it."""
    options = {"padding": "same", "use_bias": False, **options}
    return keras.layers.Conv2D(filters, kernel_size, strides, **options)
