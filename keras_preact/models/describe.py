"""Parameters, multiply-adds, shapes and training memory of a network from closed formulas."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from keras_preact.layers import (
    SHORTCUTS,
    ActivationOrder,
    Convolution,
    ExclusiveGating,
    NoShortcut,
    Operation,
    Shortcut,
    ShortcutOnlyGating,
    activation_order,
    shortcuts,
)
from keras_preact.models import architectures, training_memory
from keras_preact.models.training_memory import TrainingMemory, UnitRun
from keras_preact.support.text import aligned


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
    """The rows of a network in order, and their sums.

    Args:
        rows: of stem, units, head and logits.
        runs: the units, equal ones in a row together.
    """

    rows: tuple[Row, ...]
    runs: tuple[UnitRun, ...] = ()

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
        Each tensor is counted once. Tensors on shortcuts, and those that a kernel keeps in
        addition, are left out.
        """
        return sum(row.activations for row in self.rows)

    def training_memory(
        self,
        batch_size: int,
        precision: str = "float32",
        remat: str = "none",
        remat_units: int | None = None,
        *,
        moments: int = 1,
        averages: bool = False,
        loops: bool = True,
    ) -> TrainingMemory:
        """Estimates the memory of a training step, in bytes.

        Args:
            batch_size: images on one device.
            precision: name of a Keras dtype policy.
            remat, remat_units: what is computed twice; see the flags of training.
            moments: values of the optimizer for each weight: 1 for SGD with momentum, 2 for AdamW.
            averages: whether averages of the weights are kept.
            loops: whether equal units in a row are computed in loops.

        Raises:
            ValueError: if a name is unknown, a number is not above 0, remat_units does not go
                with remat, or remat is given without loops.
        """
        options = {"moments": moments, "averages": averages, "loops": loops}
        arguments = batch_size, precision, remat, remat_units
        return training_memory.training_memory(self, *arguments, **options)

    def __str__(self) -> str:
        head = ("layer", "output shape", "parameters", "statistics", "multiply-adds")
        total = Row("total", (), self.parameters, self.moving_statistics, self.multiply_adds)
        lines = [
            (
                row.name,
                " x ".join(map(str, row.output_shape)),
                *(f"{n:,}" for n in (row.parameters, row.moving_statistics, row.multiply_adds)),
            )
            for row in (*self.rows, total)
        ]
        return aligned(head, lines, numbers_from=2, indent="")


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
    layout: str = "paper",
    batch_size: int | None = None,
    precision: str = "float32",
    print_fn: Callable[[str], None] | None = print,
) -> Description:
    """Prints and returns what each part of a network costs, without building it.

    Takes the builders' arguments, with the meaning and defaults of `ResNetV2`.

    Args:
        batch_size: number of images; prints the memory of a training step as well, with and without
            recomputation.
        precision: of that step, name of a Keras dtype policy.
        print_fn: receives the table; None to print nothing.

    Raises:
        ValueError: as the builders do; or if input_shape leaves a size open, unit is
            a factory, or shortcut a class of your own, for which no formula is known.
    """
    architecture = architectures.resolve(depth, stem, block, width_multiplier, layout)
    if callable(unit) and not isinstance(unit, ActivationOrder):
        raise ValueError("describe knows no formula for a unit factory; build the model instead.")
    order = activation_order.get(unit)
    shape = tuple(input_shape or architecture.default_input_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(
            "input_shape must be (height, width, channels), each a whole number above 0. "
            f"Received: input_shape={shape}"
        )
    template = shortcuts.get(shortcut)
    kind = architecture.unit_kind(order, projection, template.matches_dimensions)
    tally = _Tally(shape)
    tally.run(architecture.stem_operations(order))
    rows, units = [tally.row("stem")], []
    for plan in architecture.units(kind):
        entering = tally.shape
        _unit(tally, plan, template)
        rows.append(tally.row(plan.name))
        units.append((plan, entering, rows[-1]))
    if head := architecture.head_operations(order):
        tally.run(head)
        rows.append(tally.row("head"))
    if include_top:
        classes, channels = architecture.classes(classes), tally.shape[-1]
        rows.append(Row("logits", (classes,), (channels + 1) * classes, 0, channels * classes))
    description = Description(tuple(rows), tuple(_runs(units, template)))
    if print_fn is not None:
        print_fn(str(description))
        if batch_size is not None:
            print_fn(training_memory.table(description, batch_size, precision))
    return description


def _runs(units, shortcut):
    """Yields a run for all equal units in a row."""
    by_signature = itertools.groupby(
        units, key=lambda unit: (dataclasses.replace(unit[0], name=""), unit[1])
    )
    for (plan, input_shape), equal in by_signature:
        first, *others = (row for *_, row in equal)
        yield UnitRun(
            first.name,
            1 + len(others),
            math.prod(input_shape),
            _kept_in_loop(plan, input_shape, shortcut),
            first.activations,
        )


def _kept_in_loop(plan, input_shape, shortcut):
    """Values of the input and of the outputs of convolutions that the gradients need."""
    tally = _Tally(input_shape)
    tally.keep()
    path = plan.preactivation + plan.residual
    last = max(place for place, operation in enumerate(path) if operation.kind == "conv")
    for operation in path[:last]:
        if operation.kind == "conv":
            tally.stride(operation.strides, operation.filters)
            tally.keep()
    tally.stride(path[last].strides, path[last].filters)
    # The sum alone passes gradients on as they are.
    if path[last + 1 :] or plan.after_addition or isinstance(shortcut, ExclusiveGating):
        tally.keep()
    on_shortcut = isinstance(shortcut, ExclusiveGating | ShortcutOnlyGating)
    if isinstance(shortcut, Convolution):
        on_shortcut = shortcut.batch_norm or plan.after_addition
    if on_shortcut:
        tally.new(tally.shape)
        tally.keep()
    return tally.activations


class _Tally:
    """Counts while the shape of an image passes through operations."""

    def __init__(self, shape):
        self._start()
        self.new(shape)

    def _start(self):
        self.parameters = self.moving_statistics = self.multiply_adds = self.activations = 0

    def new(self, shape):
        """Continues with another tensor, of this shape."""
        self.shape, self._kept = shape, False

    def keep(self):
        """Counts this tensor as needed by the backward pass, once."""
        if not self._kept:
            self.activations += math.prod(self.shape)
            self._kept = True

    def run(self, operations):
        """Counts operations. Zero padding, which only shortcuts have, costs nothing."""
        for operation in operations:
            match operation.kind:
                case "conv":
                    self.keep()
                    weights = operation.kernel_size**2 * self.shape[-1] * operation.filters
                    self.stride(operation.strides, operation.filters)
                    self.parameters += weights + operation.use_bias * operation.filters
                    self.multiply_adds += weights * math.prod(self.shape[:2])
                case "max_pool":
                    self.keep()
                    self.stride(operation.strides, self.shape[-1])
                case "bn":
                    self.keep()
                    self.new(self.shape)
                    self.parameters += 2 * self.shape[-1]
                    self.moving_statistics += 2 * self.shape[-1]
                case "relu":
                    # Takes the place of what it rectifies, unless that has been kept.
                    self.new(self.shape)
                    self.keep()

    def stride(self, strides, channels):
        height, width, _ = self.shape
        self.new((-(-height // strides), -(-width // strides), channels))

    @contextlib.contextmanager
    def beside(self, shape):
        """A context for operations on the shortcut: they start from this shape and keep nothing."""
        here = self.shape, self._kept, self.activations
        self.new(shape)
        yield
        self.shape, self._kept, self.activations = here

    def row(self, name):
        counts = self.parameters, self.moving_statistics, self.multiply_adds, self.activations
        self._start()
        return Row(name, self.shape, *counts)


def _unit(tally, plan, shortcut):
    input_shape = tally.shape
    tally.run(plan.preactivation + plan.residual)
    if not isinstance(shortcut, NoShortcut):
        tally.new(tally.shape)  # the sum
    tally.run(plan.after_addition)
    with tally.beside(input_shape):
        tally.run(plan.projection)
    _shortcut(tally, plan, shortcut, input_shape)


def _shortcut(tally, plan, shortcut, input_shape):
    channels = plan.output_channels
    if isinstance(shortcut, Convolution):
        conv = Operation("conv", "conv", channels, kernel_size=1, strides=plan.strides)
        with tally.beside(input_shape):
            tally.run([conv, *([Operation("bn", "bn")] if shortcut.batch_norm else [])])
    elif isinstance(shortcut, ExclusiveGating | ShortcutOnlyGating):
        with tally.beside(tally.shape):
            tally.run([Operation("conv", "gate_conv", channels, kernel_size=1)])
        tally.parameters += channels  # the bias
    elif type(shortcut) not in SHORTCUTS.values():
        raise ValueError(f"describe knows no formula for the shortcut {type(shortcut).__name__}.")
