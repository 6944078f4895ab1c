"""Memory of a training step from a closed formula."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_preact.support.choices import one_of
from keras_preact.support.memory import in_words
from keras_preact.support.text import aligned

if TYPE_CHECKING:
    from keras_preact.models.describe import Description

# Bytes of a number in an activation.
VALUE_BYTES = {"float32": 4, "mixed_bfloat16": 2, "mixed_float16": 2}
REMAT = ("none", "unit", "group", "auto")
_FLOAT32_BYTES = 4
_PARTS = ("weights", "moments", "gradients", "update", "activations", "workspace", "total")


@dataclasses.dataclass(frozen=True)
class UnitRun:
    """Equal residual units in a row, which a training step computes in one loop.

    Sizes are numbers of values, of one image unless said otherwise.

    Args:
        first: name of the first unit.
        units: how many there are.
        input: what enters a unit.
        kept: what a unit in a loop keeps for the backward pass: its input, and the outputs of its
            convolutions that the gradients need. BN and ReLU are computed again from these.
        activations: what a unit outside of a loop keeps; see `Description.activations`.
        statistics: means and variances of a batch in a unit.
    """

    first: str
    units: int
    input: int
    kept: int
    activations: int
    statistics: int

    def group(self, remat: str, remat_units: int | None = None) -> int | None:
        """The units that are computed again at once; None without recomputation."""
        if one_of("remat", remat, REMAT) == "none":
            return None
        if remat == "unit":
            return 1
        if remat == "auto":
            return max(1, round(math.sqrt(self.units)))
        return min(remat_units, self.units)


@dataclasses.dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training step on one device.

    The program itself comes in addition: TensorFlow, compiled functions, images in memory.

    Args:
        weights: and statistics, of the network and of the step.
        moments: of the optimizer.
        averages: of weights and statistics.
        gradients: of all weights.
        update: weights and moments after the step, until they take the place of those before.
        activations: what the forward pass keeps for the backward pass.
        workspace: what the backward pass holds of one unit, or of one group of units.
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
    runs = net.runs if loops else ()
    parameters = _FLOAT32_BYTES * net.parameters
    statistics = _FLOAT32_BYTES * net.moving_statistics
    return TrainingMemory(
        weights=2 * (parameters + statistics),
        moments=moments * parameters,
        averages=parameters + statistics if averages else 0,
        gradients=parameters,
        update=(1 + moments) * parameters,
        activations=kept_bytes(net, runs, image_bytes, remat, remat_units),
        workspace=max(
            (_workspace_bytes(run, image_bytes, remat, remat_units) for run in runs), default=0
        ),
    )


def kept_bytes(
    net: "Description",
    runs: Sequence[UnitRun],
    image_bytes: int,
    remat: str,
    remat_units: int | None,
) -> int:
    """Bytes that the forward pass keeps for the backward pass.

    Args:
        net: the network.
        runs: those of its runs that are computed in loops.
        image_bytes: bytes of a value in all images of a batch.
        remat, remat_units: recomputation.
    """
    outside = net.activations - sum(run.units * run.activations for run in runs)
    return image_bytes * outside + sum(
        _run_bytes(run, image_bytes, run.group(remat, remat_units)) for run in runs
    )


def group_bytes(run: UnitRun, image_bytes: int, remat: str, remat_units: int | None) -> int:
    """Bytes that the units of one group keep while the group is in the backward pass."""
    group = run.group(remat, remat_units)
    return _run_bytes(dataclasses.replace(run, units=group), image_bytes, None) if group else 0


def _run_bytes(run, image_bytes, group):
    if group is not None:
        return math.ceil(run.units / group) * image_bytes * run.input
    return run.units * (image_bytes * run.kept + _FLOAT32_BYTES * run.statistics)


def _workspace_bytes(run, image_bytes, remat, remat_units):
    """One unit's activations and the gradients of its output and input, and its group."""
    unit = image_bytes * (run.activations + 2 * run.input)
    return unit + group_bytes(run, image_bytes, remat, remat_units)


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
