"""From the names and shapes of a foreign format to the variables of our network, and back."""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_preact.layers import Operation, Preprocessing, UnitPlan, activation_order
from keras_preact.models import architectures
from keras_preact.models.architectures import Architecture


class RefusedError(ValueError):
    """A file that must not become a network of ours."""


@dataclasses.dataclass(frozen=True)
class Place:
    """A layer that has variables, and its place in the network.

    Args:
        operation: "conv", "bn" or "dense".
        stage, number: of its unit, counted from 1; 0 outside of the units.
        unit: its plan; None outside of the units.
    """

    operation: Operation
    stage: int = 0
    number: int = 0
    unit: UnitPlan | None = None

    @property
    def name(self) -> str:
        """The name of the layer, such as conv1."""
        return self.operation.name

    @property
    def path(self) -> str:
        """The path of the layer in our network, such as stage1_unit1/conv1."""
        return f"{self.unit.name}/{self.name}" if self.unit else self.name


def _kernel_to_ours(kernel):
    return kernel.transpose(2, 3, 1, 0)


def _kernel_to_torch(kernel):
    return kernel.transpose(3, 2, 0, 1)


def _matrix_to_ours(matrix):
    # A classifier may be a 1x1 convolution.
    return (matrix[:, :, 0, 0] if matrix.shape[2:] == (1, 1) else matrix).T


def _same(array):
    return array


@dataclasses.dataclass(frozen=True)
class Variable:
    """The name of a variable after that of its layer, and how its array changes.

    Args:
        name: in the foreign format.
        to_ours: takes the foreign array, returns ours.
        to_theirs: takes ours, returns the foreign one.
        ranks: that the foreign array may have.
    """

    name: str
    to_ours: Callable[[np.ndarray], np.ndarray] = _same
    to_theirs: Callable[[np.ndarray], np.ndarray] = _same
    ranks: tuple[int, ...] = (1,)


_BN = ("gamma", "beta", "moving_mean", "moving_variance")
# By the kind of the layer and the name of our variable.
TORCH = {
    "conv": {
        "kernel": Variable("weight", _kernel_to_ours, _kernel_to_torch, (4,)),
        "bias": Variable("bias"),
    },
    "bn": {
        ours: Variable(theirs)
        for ours, theirs in zip(_BN, ("weight", "bias", "running_mean", "running_var"), strict=True)
    },
    "dense": {
        "kernel": Variable("weight", _matrix_to_ours, np.transpose, (2, 4)),
        "bias": Variable("bias"),
    },
}
KERAS = {
    "conv": {"kernel": Variable("kernel", ranks=(4,)), "bias": Variable("bias")},
    "bn": {name: Variable(name) for name in _BN},
    "dense": {"kernel": Variable("kernel", ranks=(2,)), "bias": Variable("bias")},
}


@dataclasses.dataclass(frozen=True)
class Format:
    """A foreign format: which of our networks its files are, and how their names map.

    Args:
        name: as users write it.
        title: for people.
        marks: names that every file of the format has.
        unit_pattern: finds the stage and the number of a unit in a name.
        first_stage, first_unit: the numbers with which it counts.
        separator: between the name of a layer and that of its variable.
        variables: as `TORCH`.
        prefix: returns the foreign name of a layer; takes the place and all names of the file.
        arguments: returns the builder's arguments; takes depth and the tensors.
        preprocessing: returns that of the published weights; takes depth.
        stem: a key of `architectures.STEMS`.
        classifiers: names that the classifier may have.
        layouts: that are equal to the files of the format at a depth; the first is the default.
        refuse: raises `RefusedError` for relatives of the format that our builders do not have.
    """

    name: str
    title: str
    marks: tuple[str, ...]
    unit_pattern: re.Pattern
    first_stage: int
    first_unit: int
    separator: str
    variables: Mapping[str, Mapping[str, Variable]]
    prefix: Callable[[Place, Mapping[str, Any]], str]
    arguments: Callable[[int, Mapping[str, np.ndarray]], dict[str, Any]]
    preprocessing: Callable[[int], Preprocessing]
    classifiers: tuple[str, ...]
    stem: str = "imagenet"
    layouts: Callable[[int], tuple[str, ...]] = lambda depth: ("paper",)
    refuse: Callable[[Mapping[str, np.ndarray]], None] = lambda tensors: None

    def depth(self, names: Mapping[str, Any]) -> int:
        """Returns the depth of the net whose names these are.

        Raises:
            RefusedError: if no net of ours has units like these.
        """
        units = {}
        for found in filter(None, map(self.unit_pattern.match, names)):
            stage, number = int(found[1]) - self.first_stage, int(found[2]) - self.first_unit
            units.setdefault(stage, set()).add(number)
        counts = tuple(len(units[stage]) for stage in sorted(units))
        is_gapless = all(
            numbers == set(range(len(numbers))) for numbers in (set(units), *units.values())
        )
        thirds = filter(self.unit_pattern.match, names)
        is_bottleneck = any(re.search(r"\bconv3\.|_3_conv", name) for name in thirds)
        block = "bottleneck" if is_bottleneck else "basic"
        known = _depths(self.stem, block, counts) if is_gapless else ()
        if not known:
            raise RefusedError(
                f"The units in the stages of a net in the format {self.name} must be those of a "
                f"published net. Received: {block} units, {', '.join(map(str, counts)) or 'none'} "
                "in the stages"
            )
        return known[0]


def _depths(stem, block, counts):
    if stem == "imagenet":
        table = architectures.IMAGENET_DEPTHS.items()
        return [depth for depth, units in table if units == (block, counts)]
    if len(counts) == 3 and len(set(counts)) == 1:
        return [6 * counts[0] + 2 if block == "basic" else 9 * counts[0] + 2]
    return []


def places(
    architecture: Architecture, unit: str, projection: str | None, has_top: bool
) -> Iterator[Place]:
    """The layers with variables of a network, in order.

    Args:
        architecture: of the network.
        unit: the order of BN and ReLU, as for `ResNetV2`.
        projection: as for `ResNetV2`.
        has_top: whether the classifier is part of it.
    """
    order = activation_order.get(unit)
    kind = architecture.unit_kind(order, projection)
    yield from _outside(architecture.stem_operations(order))
    for plan in architecture.units(kind):
        stage, number = map(int, re.findall(r"\d+", plan.name))
        parts = (*plan.preactivation, *plan.residual, *plan.projection, *plan.after_addition)
        for operation in parts:
            if operation.kind in TORCH:
                yield Place(operation, stage, number, plan)
    yield from _outside(architecture.head_operations(order))
    if has_top:
        yield Place(Operation("dense", "logits", use_bias=True))


def _outside(operations):
    return (Place(operation) for operation in operations if operation.kind in TORCH)


def names(
    format: Format, architecture: Architecture, arguments: Mapping[str, Any], found, has_top: bool
) -> dict[str, tuple[str, Variable]]:
    """The foreign name of each of our variables, and how its array changes, by our path.

    Args:
        format: of the file.
        architecture: of the network.
        arguments: of the builder.
        found: the names of the file, for formats in which names have variants.
        has_top: whether the classifier is part of it.
    """
    table = {}
    unit, projection = arguments["unit"], arguments.get("projection")
    for place in places(architecture, unit, projection, has_top):
        prefix = format.prefix(place, found)
        for ours, theirs in format.variables[place.operation.kind].items():
            if ours == "bias" and not place.operation.use_bias:
                continue
            name = f"{prefix}{format.separator}{theirs.name}"
            table[f"{place.path}/{ours}"] = (name, theirs)
    return table
