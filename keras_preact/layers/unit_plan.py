"""The plan of a residual unit: its operations and dimensions, known before any layer exists."""

import dataclasses
from collections.abc import Iterable

from keras_preact.layers.activation_order import ORDERS, ActivationOrder
from keras_preact.support.choices import one_of

# Kernel sizes of the convolutions, first to last, and output channels per inner filter.
BLOCKS = {"single": ((3,), 1), "basic": ((3, 3), 1), "bottleneck": ((1, 3, 1), 4)}
PROJECTIONS = ("convolution", "zero_pad")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a network.

    Args:
        kind: "conv", "bn", "relu", "zero_pad" or "max_pool".
        name: of the layer that computes it.
        filters: output channels of a convolution or of zero padding.
        kernel_size: pixels, of a convolution or of pooling.
        strides: pixels between outputs.
    """

    kind: str
    name: str
    filters: int | None = None
    kernel_size: int | None = None
    strides: int = 1


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

    Raises:
        ValueError: if a name is unknown, or strided_convolution is not one of the block's.
    """

    block: str = "basic"
    order: ActivationOrder = ORDERS["full_preactivation"]
    projection: str = "convolution"
    strided_convolution: int = 1
    matches_dimensions: bool = False

    def __post_init__(self):
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
    ) -> UnitPlan:
        """The plan of one unit; the arguments are those of `ResidualUnit`."""
        kernel_sizes, _ = BLOCKS[self.block]
        output_channels = self.output_channels(filters)
        path = []
        for number, sequence in enumerate(self.order.sequences(len(kernel_sizes)), 1):
            conv = Operation(
                kind="conv",
                name=f"conv{number}",
                filters=output_channels if number == len(kernel_sizes) else filters,
                kernel_size=kernel_sizes[number - 1],
                strides=strides if number == self.strided_convolution else 1,
            )
            path += _around(conv, sequence, number)
        changes_dimensions = strides > 1 or input_channels != output_channels
        projects = changes_dimensions and not self.matches_dimensions
        first_convolution = len(self.order.preactivation)
        return UnitPlan(
            name=name,
            filters=filters,
            strides=strides,
            first_in_network=first_in_network,
            output_channels=output_channels,
            preactivation=tuple(path[:first_convolution]),
            residual=tuple(path[first_convolution:]),
            projection=self._projection(output_channels, strides) if projects else (),
            after_addition=named("addition", self.order.after_addition.split()),
            changes_dimensions=changes_dimensions,
            shares_preactivation=first_in_network or changes_dimensions,
        )

    def _projection(self, filters, strides):
        if self.projection == "zero_pad":
            return (Operation("zero_pad", "projection", filters, strides=strides),)
        conv = Operation("conv", "projection_conv", filters, kernel_size=1, strides=strides)
        _, *after = self.order.projection
        return (conv, *named("projection", after))


def named(prefix: str, kinds: Iterable[str]) -> tuple[Operation, ...]:
    """BN and ReLU outside of a residual function, such as addition_bn and addition_relu."""
    return tuple(Operation(kind, f"{prefix}_{kind}") for kind in kinds)


def _around(conv, sequence, number):
    """A convolution between its BN and ReLU, each BN named after it."""
    place = sequence.index("conv")
    before, after = f"bn{number}", f"bn{number}"
    if number == 1:
        before = "preact_bn"
    elif "bn" in sequence[:place]:
        after = f"bn{number}_after"
    names = [before] * place + [conv.name] + [after] * len(sequence[place + 1 :])
    kinds = zip(sequence, names, strict=True)
    return [
        conv if kind == "conv" else Operation(kind, name if kind == "bn" else "relu")
        for kind, name in kinds
    ]
