"""The residual unit: y = h(x) + F(x), next x = f(y)."""

import keras

from keras_preact.layers import activation_order, shortcuts
from keras_preact.layers.activation_order import ActivationOrder
from keras_preact.layers.batch_norm import BatchNormalization
from keras_preact.layers.quick_layer import QuickLayer
from keras_preact.layers.shortcuts import Shortcut
from keras_preact.layers.spatial import Conv2D, SymmetricMaxPooling2D, ZeroPad
from keras_preact.layers.stochastic_depth import StochasticDepth, check_rate
from keras_preact.layers.taps import Taps
from keras_preact.layers.unit_plan import Dilation, Operation, UnitKind


@keras.saving.register_keras_serializable(package="keras_preact")
class ResidualUnit(QuickLayer):
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
        layout: a name in `LAYOUTS`: biases, shortcuts that pool, and BN's epsilon.
        dilation_rate: pixels between the taps of the 3x3 kernels: up to the convolution with
            the stride, and behind it. Trades a stride for dilation, see
            `models.feature_extractor`.

    Input shape: (batch, height, width, channels). Output shape:
    (batch, ceil(height / strides), ceil(width / strides), output channels).

    Once built, `plan` is its `UnitPlan`.

    Raises:
        ValueError: if a name is unknown, strided_convolution is not one of the
            unit's convolutions, stochastic_depth_rate is below 0, not below 1, or above
            0 where there is no shortcut, or zero padding meets fewer output than input
            channels.

    Source: "Identity Mappings in Deep Residual Networks", figures 1, 2 and 4, appendix.
    """

    # Its `StochasticDepth` computes with it, and is lent the rate of each unit.
    varies_in_loops = ("stochastic_depth_rate",)

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
        layout: str = "paper",
        dilation_rate: Dilation = (1, 1),
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides
        self.first_in_network = first_in_network
        self.order = activation_order.get(order)
        # By name, as a policy object would keep Keras from saving shortcuts without get_config.
        dtype = self.dtype_policy.name
        self.shortcut = shortcuts.get(shortcut, name="shortcut", dtype=dtype, strides=strides)
        matches_dimensions = self.shortcut.matches_dimensions
        self.kind = UnitKind(
            block, self.order, projection, strided_convolution, matches_dimensions, layout
        )
        self.dilation_rate = tuple(dilation_rate)
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
        matched = _run(self.match, activated if self.plan.shares_preactivation else x)
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
        self.plan = plan = self.kind.plan(
            input_shape[-1],
            self.filters,
            self.strides,
            self.first_in_network,
            self.name,
            self.dilation_rate,
        )
        output_shape = self.compute_output_shape(input_shape)
        self.preactivation = self._build_layers(plan.preactivation, input_shape)
        residual = self._build_layers(plan.residual, input_shape)
        if self.stochastic_depth_rate:
            options = {"name": "stochastic_depth", "dtype": self.dtype_policy}
            residual.append(StochasticDepth(self.stochastic_depth_rate, **options))
            residual[-1].build(output_shape)
        self.residual_function = residual
        self.match = self._build_layers(plan.projection, input_shape)
        self.shortcut.build(output_shape if self.match else input_shape, output_shape)
        self.after_addition = self._build_layers(plan.after_addition, output_shape)

    def make_layer(self, operation: Operation) -> keras.layers.Layer:
        """Returns the layer, not yet built, that computes an operation other than ReLU.

        A unit of your own may override it to put other layers in the places of the plan.

        Args:
            operation: its `name` is the layer's, such as "conv2" or "projection_conv".
        """
        return make_layer(operation, dtype=self.dtype_policy)

    def compute_output_shape(self, input_shape):
        batch, *sizes, _ = input_shape
        sizes = [None if size is None else -(-size // self.strides) for size in sizes]
        return (batch, *sizes, self.kind.output_channels(self.filters))

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        shortcut = serialize(self.shortcut)
        # Its strides are those of the unit.
        shortcut["config"].pop("strides", None)
        return {
            **super().get_config(),
            "filters": self.filters,
            "strides": self.strides,
            "block": self.kind.block,
            "order": serialize(self.order),
            "shortcut": shortcut,
            "projection": self.kind.projection,
            "first_in_network": self.first_in_network,
            "strided_convolution": self.kind.strided_convolution,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            "layout": self.kind.layout,
            "dilation_rate": self.dilation_rate,
        }

    def _build_layers(self, operations, shape):
        """A built layer for each operation, a function for each ReLU."""
        layers = []
        for operation in operations:
            if operation.kind == "relu":
                layers.append(keras.ops.relu)
                continue
            layer = self.make_layer(operation)
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
            layers.append(layer)
        return layers


def make_layer(operation: Operation, **options) -> keras.layers.Layer:
    """The layer that computes an operation; options are those of any Keras layer."""
    options["name"] = operation.name
    filters, size, strides = operation.filters, operation.kernel_size, operation.strides
    match operation.kind:
        case "conv":
            options |= {"use_bias": operation.use_bias, "dilation_rate": operation.dilation}
            return Conv2D(filters, size, strides, **options)
        case "bn":
            return BatchNormalization(operation.momentum, operation.epsilon, **options)
        case "relu":
            return keras.layers.ReLU(**options)
        case "zero_pad":
            return ZeroPad(filters, strides, **options)
        case "max_pool":
            return SymmetricMaxPooling2D(size, strides, operation.zero_padded, **options)


def _run(layers, x):
    for layer in layers:
        x = layer(x)
    return x
