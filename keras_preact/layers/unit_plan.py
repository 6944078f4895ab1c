"""The plan of a residual unit: its operations and dimensions, known before any layer exists."""

import dataclasses
from collections.abc import Iterable

from keras_preact.layers.activation_order import ORDERS, ActivationOrder
from keras_preact.layers.layout import LAYOUTS, Layout
from keras_preact.support.choices import one_of

# Kernel sizes of the convolutions, first to last, and output channels per inner filter.
BLOCKS = {"single": ((3,), 1), "basic": ((3, 3), 1), "bottleneck": ((1, 3, 1), 4)}
PROJECTIONS = ("convolution", "zero_pad")
# Of the convolutions up to the one with the stride, and of those behind it.
Dilation = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a network.

    Args:
        kind: "conv", "bn", "relu", "zero_pad" or "max_pool".
        name: of the layer that computes it.
        filters: output channels of a convolution or of zero padding.
        kernel_size: pixels, of a convolution or of pooling.
        strides: pixels between outputs.
        dilation: pixels between the taps of a convolution's kernel.
        use_bias: whether a convolution has a bias.
        zero_padded: whether pooling pads with zeros, not with the lowest number.
        epsilon, momentum: of BN.
    """

    kind: str
    name: str
    filters: int | None = None
    kernel_size: int | None = None
    strides: int = 1
    dilation: int = 1
    use_bias: bool = False
    zero_padded: bool = False
    epsilon: float = LAYOUTS["paper"].bn_epsilon
    momentum: float = LAYOUTS["paper"].bn_momentum


@dataclasses.dataclass(frozen=True)
class UnitPlan:
    """A residual unit in full: y = h(x) + F(x), next x = f(y).

    Args:
        name: of the unit, such as stage2_unit1.
        filters: output channels of the inner convolutions.
        strides: pixels between outputs of the whole unit.
        first_in_network: whether it is the first unit of its network.
        output_channels: of the whole unit.
        preactivation: the operations before the first convolution.
        residual: those from the first convolution to the addition.
        projection: those of the shortcut, where it must change dimensions.
        after_addition: those of f.
        changes_dimensions: whether the output differs from the input in size or channels.
        shares_preactivation: whether the shortcut too starts from the pre-activated input.
    """

    name: str
    filters: int
    strides: int
    first_in_network: bool
    output_channels: int
    preactivation: tuple[Operation, ...]
    residual: tuple[Operation, ...]
    projection: tuple[Operation, ...]
    after_addition: tuple[Operation, ...]
    changes_dimensions: bool
    shares_preactivation: bool


@dataclasses.dataclass(frozen=True)
class UnitKind:
    """The choices that the residual units of a network have in common.

    Args:
        block: a key of `BLOCKS`.
        order: of BN and ReLU around the convolutions.
        projection: one of `PROJECTIONS`.
        strided_convolution: which convolution has the stride, counted from 1.
        matches_dimensions: whether the shortcut changes dimensions itself, without a projection.
        layout: a key of `LAYOUTS`.

    Raises:
        ValueError: if a name is unknown, or strided_convolution is not one of the block's.
    """

    block: str = "basic"
    order: ActivationOrder = ORDERS["full_preactivation"]
    projection: str = "convolution"
    strided_convolution: int = 1
    matches_dimensions: bool = False
    layout: str = "paper"

    def __post_init__(self):
        one_of("layout", self.layout, LAYOUTS)
        kernel_sizes, _ = BLOCKS[one_of("block", self.block, BLOCKS)]
        one_of("projection", self.projection, PROJECTIONS)
        if not 1 <= self.strided_convolution <= len(kernel_sizes):
            raise ValueError(
                f"strided_convolution of a {self.block} unit must be from 1 to "
                f"{len(kernel_sizes)}. Received: strided_convolution={self.strided_convolution}"
            )

    def output_channels(self, filters: int) -> int:
        """Channels that a unit of these filters returns."""
        return filters * BLOCKS[self.block][1]

    def plan(
        self,
        input_channels: int,
        filters: int,
        strides: int = 1,
        first_in_network: bool = False,
        name: str = "",
        dilation: Dilation = (1, 1),
    ) -> UnitPlan:
        """The plan of one unit; the arguments are those of `ResidualUnit`."""
        kernel_sizes, _ = BLOCKS[self.block]
        layout = LAYOUTS[self.layout]
        output_channels = self.output_channels(filters)
        path = []
        for number, sequence in enumerate(self.order.sequences(len(kernel_sizes)), 1):
            is_last = number == len(kernel_sizes)
            conv = Operation(
                kind="conv",
                name=f"conv{number}",
                filters=output_channels if is_last else filters,
                kernel_size=kernel_sizes[number - 1],
                strides=strides if number == self.strided_convolution else 1,
                dilation=dilation[number > self.strided_convolution],
                use_bias=layout.biases and is_last,
            )
            path += _around(conv, sequence, number, layout)
        changes_channels = input_channels != output_channels
        changes_dimensions = strides > 1 or changes_channels
        pools = layout.pools_shortcut and not changes_channels
        projection = ()
        if changes_dimensions and not self.matches_dimensions:
            projection = self._projection(output_channels, strides, pools)
        first_convolution = len(self.order.preactivation)
        return UnitPlan(
            name=name,
            filters=filters,
            strides=strides,
            first_in_network=first_in_network,
            output_channels=output_channels,
            preactivation=tuple(path[:first_convolution]),
            residual=tuple(path[first_convolution:]),
            projection=projection,
            after_addition=named("addition", self.order.after_addition.split(), layout),
            changes_dimensions=changes_dimensions,
            shares_preactivation=first_in_network or (changes_dimensions and not pools),
        )

    def _projection(self, filters, strides, pools):
        # Without new channels, zero padding keeps every strides-th pixel and does nothing else.
        if pools or self.projection == "zero_pad":
            return (Operation("zero_pad", "projection", filters, strides=strides),)
        layout = LAYOUTS[self.layout]
        options = {"kernel_size": 1, "strides": strides, "use_bias": layout.biases}
        conv = Operation("conv", "projection_conv", filters, **options)
        _, *after = self.order.projection
        return (conv, *named("projection", after, layout))


def named(prefix: str, kinds: Iterable[str], layout: Layout) -> tuple[Operation, ...]:
    """BN and ReLU outside of a residual function, such as addition_bn and addition_relu."""
    return tuple(_activation(kind, f"{prefix}_{kind}", layout) for kind in kinds)


def _activation(kind, name, layout):
    if kind == "bn":
        return Operation(kind, name, epsilon=layout.bn_epsilon, momentum=layout.bn_momentum)
    return Operation(kind, name)


def _around(conv, sequence, number, layout):
    """A convolution between its BN and ReLU, each BN named after it."""
    place = sequence.index("conv")
    before = after = f"bn{number}"
    if number == 1:
        before = "preact_bn"
    elif "bn" in sequence[:place]:
        after = f"{after}_after"

    def activation(kinds, bn):
        return [_activation(kind, bn if kind == "bn" else "relu", layout) for kind in kinds]

    return [*activation(sequence[:place], before), conv, *activation(sequence[place + 1 :], after)]
