"""Memory of a training step from a closed formula."""

import dataclasses
import math
from typing import TYPE_CHECKING

from keras_preact.models.unit_loops import REMAT, Remat
from keras_preact.support.choices import one_of
from keras_preact.support.memory import in_words
from keras_preact.support.text import aligned

if TYPE_CHECKING:
    from keras_preact.models.describe import Description

# Bytes of a number in an activation.
VALUE_BYTES = {"float32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}
# On a processor: TensorFlow's graphs and kernels beyond what it takes before its first step, of any
# network, as measured.
RUNTIME_BYTES = 120 * 2**20
_FLOAT32_BYTES = 4
_PARTS = ("weights", "moments", "gradients", "update", "activations", "workspace", "total")


@dataclasses.dataclass(frozen=True)
class UnitRun:
    """Equal residual units in a row, which a training step computes in one loop; or a unit alone.

    Sizes are numbers of values of one image.

    Args:
        first: name of the first unit.
        units: how many there are.
        input: what enters a unit.
        kept: what a unit in a loop keeps for the backward pass: its input, and the outputs of its
            convolutions that the gradients need. BN and ReLU are computed again from these.
        activations: what a unit outside of a loop keeps; see `Description.activations`.
    """

    first: str
    units: int
    input: int
    kept: int
    activations: int

    def kept_in_all(self, loops: bool, remat: str, remat_units: int | None = None) -> int:
        """The values that all units keep from the forward pass for the backward pass.

        Args:
            loops: whether equal units in a row are computed in loops.
            remat, remat_units: what is computed twice.
        """
        if remat != "none":
            return math.ceil(self.units / self.group(remat, remat_units)) * self.input
        return self.units * (self.kept if loops and self.units > 1 else self.activations)

    def kept_in_group(self, remat: str, remat_units: int | None = None) -> int:
        """The values that the units of a group keep while it is in the backward pass."""
        if remat in ("none", "unit"):
            return 0 if remat == "none" else self.kept
        return self.group(remat, remat_units) * self.activations

    def group(self, remat: str, remat_units: int | None = None) -> int:
        """The number of units that are computed again together."""
        return 1 if remat == "unit" else Remat(remat, remat_units).group(self.units)


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step on one device.

    The program itself comes in addition, with images in memory and on a processor `RUNTIME_BYTES`.

    Args:
        weights: and statistics, of the network and of the step.
        moments: of the optimizer.
        averages: of weights and statistics.
        gradients: of all weights: of each unit, in stacks, and in one row.
        update: the weights as loops read them; and weights and moments after the step, until they
            take the place of those before.
        activations: what the forward pass keeps for the backward pass.
        workspace: what the backward pass holds of one unit, and of the group of units that it
            computes again.
    """

    weights: int
    moments: int
    averages: int
    gradients: int
    update: int
    activations: int
    workspace: int

    @property
    def total(self) -> int:
        return sum(dataclasses.astuple(self))

    @property
    def in_step(self) -> int:
        """Bytes that are taken during a step alone."""
        return self.gradients + self.update + self.activations + self.workspace


def training_memory(
    net: "Description",
    batch_size: int,
    precision: str = "float32",
    remat: str = "none",
    remat_units: int | None = None,
    *,
    moments: int = 1,
    averages: bool = False,
    loops: bool = True,
) -> TrainingMemory:
    """Estimates the memory of a training step; see `Description.training_memory`."""
    one_of("precision", precision, VALUE_BYTES)
    if (remat == "group") != (remat_units is not None):
        raise ValueError(
            "remat='group' and remat_units go together: units of a group. "
            f"Received: remat={remat!r}, remat_units={remat_units}"
        )
    for name, value in {"batch_size": batch_size, "remat_units": remat_units}.items():
        if value is not None and not (isinstance(value, int) and value > 0):
            raise ValueError(f"{name} must be a whole number above 0. Received: {name}={value!r}")
    if one_of("remat", remat, REMAT) != "none" and not loops:
        raise ValueError(f"remat recomputes units in loops. Received: remat={remat!r}, loops=False")
    image_bytes = batch_size * VALUE_BYTES[precision]
    parameters = _FLOAT32_BYTES * net.parameters
    statistics = _FLOAT32_BYTES * net.moving_statistics
    again = (remat, remat_units)
    return TrainingMemory(
        weights=2 * (parameters + statistics),
        moments=moments * parameters,
        averages=parameters + statistics if averages else 0,
        gradients=3 * parameters,
        update=(2 + moments) * parameters,
        activations=image_bytes * kept_values(net, loops, *again),
        workspace=image_bytes * max(_workspace_values(run, *again) for run in net.runs),
    )


def kept_values(
    net: "Description", loops: bool, remat: str = "none", remat_units: int | None = None
) -> int:
    """The values of one image that the forward pass keeps for the backward pass.

    Args:
        net: the network.
        loops: whether equal units in a row are computed in loops.
        remat, remat_units: what is computed twice.
    """
    units = sum(run.kept_in_all(loops, remat, remat_units) for run in net.runs)
    return values_outside(net) + units


def values_outside(net: "Description") -> int:
    """The values of one image that stem, head and logits keep."""
    return net.activations - sum(run.units * run.activations for run in net.runs)


def _workspace_values(run, remat, remat_units):
    """The activations of a unit and the gradients of its output and input, twice, and its group.

    Twice, as measured: kernels take as much again.
    """
    return 2 * (run.activations + 2 * run.input) + run.kept_in_group(remat, remat_units)


def table(net: "Description", batch_size: int, precision: str = "float32") -> str:
    """A table of the training memory, with a column for each way to recompute."""
    columns = {
        remat: training_memory(net, batch_size, precision, remat)
        for remat in ("none", "unit", "auto")
    }
    lines = [
        (name, *(in_words(getattr(memory, name)) for memory in columns.values())) for name in _PARTS
    ]
    images = "image" if batch_size == 1 else "images"
    head = (
        f"training, {batch_size:,} {images}, {precision}",
        *(f"remat={name}" for name in columns),
    )
    return aligned(head, lines, numbers_from=1, indent="")
