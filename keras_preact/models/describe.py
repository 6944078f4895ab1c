"""Parameters, multiply-adds and shapes of a network from closed formulas."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence

from keras_preact.layers import (
    BLOCKS,
    SHORTCUTS,
    ActivationOrder,
    Convolution,
    ExclusiveGating,
    NoShortcut,
    Shortcut,
    ShortcutOnlyGating,
    shortcut_choice,
)
from keras_preact.layers import activation_order as activation_orders
from keras_preact.models import architectures


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer of the description. Shapes are (height, width, channels) of one image.

    Args:
        name: of the layer.
        output_shape: see above.
        parameters: trainable.
        moving_statistics: see `Description`.
        multiply_adds: for one image.
        activations: values of one image that a training step keeps for the backward pass,
            at least; see `Description`.
    """

    name: str
    output_shape: tuple[int, int, int] | tuple[int]
    parameters: int
    moving_statistics: int
    multiply_adds: int
    activations: int = 0


@dataclasses.dataclass(frozen=True)
class Description:
    """The rows of a network in order, and their sums."""

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def moving_statistics(self) -> int:
        """Means and variances that batch normalization keeps: not trainable."""
        return sum(row.moving_statistics for row in self.rows)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and logits for one image."""
        return sum(row.multiply_adds for row in self.rows)

    @property
    def activations(self) -> int:
        """Values of one image that a training step keeps for the backward pass, at least.

        The gradients of convolutions and of BN need their inputs, that of ReLU its output.
        Each tensor is counted once; what is on shortcuts, and what a kernel keeps beside,
        is left out.
        """
        return sum(row.activations for row in self.rows)

    def __str__(self) -> str:
        header = ("layer", "output shape", "parameters", "statistics", "multiply-adds")
        total = Row("total", (), self.parameters, self.moving_statistics, self.multiply_adds)
        lines = [header] + [
            (
                row.name,
                " x ".join(map(str, row.output_shape)),
                *(f"{n:,}" for n in (row.parameters, row.moving_statistics, row.multiply_adds)),
            )
            for row in (*self.rows, total)
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )


def describe(
    depth: int,
    *,
    input_shape: Sequence[int] | None = None,
    classes: int | None = None,
    include_top: bool = True,
    stem: str | None = None,
    block: str | None = None,
    unit: str | ActivationOrder = "full_preactivation",
    shortcut: str | Shortcut = "identity",
    projection: str | None = None,
    width_multiplier: float = 1.0,
    print_fn: Callable[[str], None] | None = print,
) -> Description:
    """Prints and returns what each part of a network costs, without building it.

    Takes the builders' arguments, with the meaning and defaults of `ResNetV2`.

    Args:
        print_fn: receives the table; None to print nothing.

    Raises:
        ValueError: as the builders do; or if input_shape leaves a size open, unit is
            a factory, or shortcut a class of your own, for which no formula is known.
    """
    plan = architectures.resolve(depth, stem, block, width_multiplier)
    if callable(unit) and not isinstance(unit, ActivationOrder):
        raise ValueError("describe knows no formula for a unit factory; build the model instead.")
    order = activation_orders.get(unit)
    shape = tuple(input_shape or plan.default_input_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            "input_shape must be (height, width, channels), each a whole number above 0. "
            f"Received: input_shape={shape}"
        )
    tally = _Tally(shape)
    rows = [_stem(tally, plan, order)]
    template = shortcut_choice.get(shortcut)
    projection = plan.projection(projection)
    for unit_plan in plan.units():
        rows.append(_unit(tally, unit_plan, plan, order, template, projection))
    if order.preactivation:
        tally.operations(order.preactivation)
        rows.append(tally.row("head"))
    if include_top:
        classes, channels = plan.classes(classes), tally.shape[-1]
        rows.append(Row("logits", (classes,), (channels + 1) * classes, 0, channels * classes))
    description = Description(tuple(rows))
    if print_fn is not None:
        print_fn(str(description))
    return description


class _Tally:
    """Counts while an image's shape passes through operations."""

    def __init__(self, shape):
        self._start()
        self.new(shape)

    def _start(self):
        self.parameters = self.moving_statistics = self.multiply_adds = self.activations = 0

    def new(self, shape):
        """Goes on with another tensor, of this shape."""
        self.shape, self._kept = shape, False

    def keep(self):
        """Counts this tensor, which the backward pass needs, unless that has been done."""
        if not self._kept:
            self.activations += math.prod(self.shape)
            self._kept = True

    def conv(self, filters, kernel_size, strides=1, bias=0):
        self.keep()
        height, width, channels = self.shape
        height, width = -(-height // strides), -(-width // strides)
        weights = kernel_size**2 * channels * filters
        self.new((height, width, filters))
        self.parameters += weights + bias
        self.multiply_adds += weights * height * width

    def operations(self, operations, **conv):
        for operation in operations:
            if operation == "conv":
                self.conv(**conv)
            elif operation == "bn":
                self.keep()
                self.new(self.shape)
                self.parameters += 2 * self.shape[-1]
                self.moving_statistics += 2 * self.shape[-1]
            else:
                # Takes the place of what it rectifies, unless that has been kept.
                self.new(self.shape)
                self.keep()

    @contextlib.contextmanager
    def beside(self, shape):
        """A context for what is computed beside, from this shape on, and keeps nothing."""
        here = self.shape, self._kept, self.activations
        self.new(shape)
        yield
        self.shape, self._kept, self.activations = here

    def row(self, name):
        counts = self.parameters, self.moving_statistics, self.multiply_adds, self.activations
        self._start()
        return Row(name, self.shape, *counts)


def _stem(tally, plan, order):
    kernel_size, strides = (7, 2) if plan.stem == "imagenet" else (3, 1)
    tally.conv(plan.stem_filters, kernel_size, strides)
    tally.operations(order.stem_completion)
    if plan.stem == "imagenet":
        tally.keep()
        height, width, channels = tally.shape
        tally.new((-(-height // 2), -(-width // 2), channels))
    return tally.row("stem")


def _unit(tally, unit_plan, plan, order, shortcut, projection):
    kernel_sizes, expansion = BLOCKS[plan.block]
    input_shape = tally.shape
    channels = unit_plan.filters * expansion
    for number, sequence in enumerate(order.sequences(len(kernel_sizes)), 1):
        tally.operations(
            sequence,
            filters=channels if number == len(kernel_sizes) else unit_plan.filters,
            kernel_size=kernel_sizes[number - 1],
            strides=unit_plan.strides if number == plan.strided_convolution else 1,
        )
    if not isinstance(shortcut, NoShortcut):
        tally.new(tally.shape)  # the sum
    tally.operations(order.after_addition.split())

    changes = unit_plan.strides > 1 or input_shape[-1] != channels
    if changes and not shortcut.matches_dimensions and projection == "convolution":
        with tally.beside(input_shape):
            tally.operations(
                order.projection, filters=channels, kernel_size=1, strides=unit_plan.strides
            )
    _shortcut(tally, shortcut, input_shape, unit_plan.strides, channels)
    return tally.row(unit_plan.name)


def _shortcut(tally, shortcut, input_shape, strides, channels):
    if isinstance(shortcut, Convolution):
        operations = ["conv", "bn"] if shortcut.batch_norm else ["conv"]
        with tally.beside(input_shape):
            tally.operations(operations, filters=channels, kernel_size=1, strides=strides)
    elif isinstance(shortcut, ExclusiveGating | ShortcutOnlyGating):
        with tally.beside(tally.shape):
            tally.conv(channels, 1, bias=channels)
    elif type(shortcut) not in SHORTCUTS.values():
        raise ValueError(f"describe knows no formula for the shortcut {type(shortcut).__name__}.")
