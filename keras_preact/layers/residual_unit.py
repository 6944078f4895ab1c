"""The residual unit: y = h(x) + F(x), next x = f(y)."""

import keras

from keras_preact.layers import activation_order, shortcut_choice
from keras_preact.layers.activation_order import ActivationOrder
from keras_preact.layers.batch_norm import BatchNormalization
from keras_preact.layers.convolution import Conv2D
from keras_preact.layers.shortcuts import Shortcut
from keras_preact.layers.stochastic_depth import StochasticDepth, check_rate
from keras_preact.layers.taps import Taps
from keras_preact.layers.zero_pad import PROJECTIONS, ZeroPad
from keras_preact.support.choices import one_of

# Kernel sizes of the convolutions, first to last, and output channels per inner filter.
BLOCKS = {"single": ((3,), 1), "basic": ((3, 3), 1), "bottleneck": ((1, 3, 1), 4)}


@keras.saving.register_keras_serializable(package="keras_preact")
class ResidualUnit(keras.layers.Layer):
    """One residual unit: a residual function, a shortcut, and their sum.

    Args:
        filters: output channels of the inner convolutions. A bottleneck unit
            returns four times as many.
        strides: pixels between outputs, the same in both directions.
        block: "basic" (two 3x3), "bottleneck" (1x1, 3x3, 1x1) or "single" (one 3x3).
        order: a name in `ORDERS`, or an `ActivationOrder`.
        shortcut: a name in `SHORTCUTS`, or a `Shortcut` to copy.
        projection: "convolution" (1x1) or "zero_pad" (subsample, then zero channels,
            half on each side): how the shortcut meets the residual where dimensions change.
        first_in_network: whether the shortcut too starts from the pre-activated
            input, as it does in the paper's first unit. Where dimensions change it
            always does.
        strided_convolution: which convolution has the stride, counted from 1.
        stochastic_depth_rate: the probability with which an image skips the residual
            function in training, see `StochasticDepth`.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), output channels).

    Raises:
        ValueError: if a name is unknown, strided_convolution is not one of the
            unit's convolutions, stochastic_depth_rate is below 0, not below 1, or above
            0 where there is no shortcut, or zero padding meets fewer output than input
            channels.

    Source: "Identity Mappings in Deep Residual Networks", figures 1, 2 and 4, appendix.
    """

    def __init__(
        self,
        filters: int,
        strides: int = 1,
        *,
        block: str = "basic",
        order: str | ActivationOrder = "full_preactivation",
        shortcut: str | Shortcut = "identity",
        projection: str = "convolution",
        first_in_network: bool = False,
        strided_convolution: int = 1,
        stochastic_depth_rate: float = 0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.block = one_of("block", block, BLOCKS)
        self.order = activation_order.get(order)
        self.projection = one_of("projection", projection, PROJECTIONS)
        self.first_in_network = first_in_network
        self.strided_convolution = strided_convolution
        self.kernel_sizes, expansion = BLOCKS[block]
        self.output_channels = filters * expansion
        if not 1 <= strided_convolution <= len(self.kernel_sizes):
            raise ValueError(
                f"strided_convolution of a {block} unit must be from 1 to "
                f"{len(self.kernel_sizes)}. Received: strided_convolution={strided_convolution}"
            )
        # By name, as a policy object would keep Keras from saving shortcuts without get_config.
        dtype = self.dtype_policy.name
        self.shortcut = shortcut_choice.get(shortcut, name="shortcut", dtype=dtype)
        self.shortcut.strides = strides
        self.stochastic_depth_rate = check_rate(stochastic_depth_rate, self.shortcut)

    def call(self, x, training=None, return_taps=False):
        """Returns f(h(x) + F(x)), or all signals on the way as `Taps`.

        Args:
            x: (batch, height, width, channels).
            training: whether BN normalizes by the batch.
            return_taps: whether to return `Taps`.
        """
        activated = _run(self.preactivation, x)
        residual = _run(self.residual_function, activated)
        shared = self.first_in_network or self.changes_dimensions
        matched = _run(self.match, activated if shared else x)
        if not return_taps:
            return _run(self.after_addition, self.shortcut(matched, residual))
        h, added = self.shortcut.parts(matched, residual, training=training)
        factor = self.shortcut.factor(matched, training=training)
        y = h + added
        output = _run(self.after_addition, y)
        # In training a second call of BN would update its moving statistics again.
        without_residual = None if training else _run(self.after_addition, h)
        return Taps(matched, h, added, y, output, factor, without_residual)

    def build(self, input_shape):
        self.changes_dimensions = self.strides > 1 or input_shape[-1] != self.output_channels
        path = []
        for number, sequence in enumerate(self.order.sequences(len(self.kernel_sizes)), 1):
            before, after = ("preact_bn", "bn1") if number == 1 else [f"bn{number}"] * 2
            path += self._arrange(sequence, self._inner_convolution(number), before, after)
        if self.stochastic_depth_rate:
            options = {"name": "stochastic_depth", "dtype": self.dtype_policy}
            path.append(StochasticDepth(self.stochastic_depth_rate, **options))
        output_shape = _build(path, input_shape)
        pre = len(self.order.preactivation)
        self.preactivation, self.residual_function = path[:pre], path[pre:]

        matches = self.changes_dimensions and not self.shortcut.matches_dimensions
        self.match = self._make_match() if matches else []
        self.shortcut.build(_build(self.match, input_shape), output_shape)
        self.after_addition = self._arrange(self.order.after_addition.split(), None, "addition_bn")
        _build(self.after_addition, output_shape)

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        sizes = [None if size is None else -(-size // self.strides) for size in sizes]
        return (batch, *sizes, self.output_channels)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "block": self.block,
            "order": serialize(self.order),
            "shortcut": serialize(self.shortcut),
            "projection": self.projection,
            "first_in_network": self.first_in_network,
            "strided_convolution": self.strided_convolution,
            "stochastic_depth_rate": self.stochastic_depth_rate,
        }

    def _inner_convolution(self, number):
        return Conv2D(
            self.output_channels if number == len(self.kernel_sizes) else self.filters,
            self.kernel_sizes[number - 1],
            self.strides if number == self.strided_convolution else 1,
            name=f"conv{number}",
            dtype=self.dtype_policy,
        )

    def _make_match(self):
        options = {"dtype": self.dtype_policy}
        if self.projection == "zero_pad":
            return [ZeroPad(self.output_channels, self.strides, name="projection", **options)]
        conv = Conv2D(self.output_channels, 1, self.strides, name="projection_conv", **options)
        return self._arrange(self.order.projection, conv, None, "projection_bn")

    def _arrange(self, operations, conv, bn_before, bn_after=None):
        """A layer or function for each operation; a BN is named by its side of the convolution."""
        layers, bn_name = [], bn_before
        for operation in operations:
            if operation == "conv":
                layers.append(conv)
                taken = [layer.name for layer in layers if isinstance(layer, BatchNormalization)]
                bn_name = f"{bn_after}_after" if bn_after in taken else bn_after
            elif operation == "bn":
                layers.append(BatchNormalization(name=bn_name, dtype=self.dtype_policy))
            else:
                layers.append(keras.ops.relu)
        return layers


def _build(layers, shape):
    """Builds the layers one after the other and returns the shape that leaves the last."""
    for layer in layers:
        if isinstance(layer, keras.layers.Layer):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
    return shape


def _run(layers, x):
    for layer in layers:
        x = layer(x)
    return x
