"""A network as a function of its values, with a loop for each row of equal units."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_preact.layers.batch_norm import bn_layers, traced_for_xla
from keras_preact.models.unit_graph import NotPureError, UnitGraph
from keras_preact.models.unit_loops import Remat, UnitLoop, alone
from keras_preact.models.unit_signature import signature, varying_numbers

Values = Mapping[str, tf.Tensor]


class LoopedNetwork:
    """Computes a network from the values of its variables, and takes its gradient.

    Layers that follow one another and have one signature, as the units of a stage after its first,
    are one loop over values that are stacked. A network that is no chain of layers is computed as
    it is.

    Values have the paths of their variables as keys; a stack has that of its first variable.

    Args:
        model: functional and built.
        loops: whether there are loops.
        remat: what the backward pass computes again, of units.
        compiles_units: whether XLA compiles each kind of unit on its own, called from loops of
            TensorFlow's; otherwise units are compiled if what calls them is.

    Attributes:
        stacks: the paths of the variables of each stack, in order.
        unrolled: why rows of equal units are no loops, one line each, as known after a call.
    """

    def __init__(
        self,
        model: keras.Model,
        loops: bool = True,
        remat: Remat = Remat(),  # noqa: B008 - frozen
        compiles_units: bool = False,
    ):
        self._model, self._remat, self._compiles_units = model, remat, compiles_units
        layers = _chain(model) if loops else None
        self._rows = None if layers is None else [*_rows(layers)]
        self.stacks = [stack for row in self._rows or () for stack in _stacks(row)]
        self.unrolled: list[str] = []
        self._graphs: dict[tuple, UnitGraph] = {}

    @tf.autograph.experimental.do_not_convert
    def __call__(
        self,
        values: Values,
        images: tf.Tensor,
        *,
        training: bool,
        differentiates: bool = False,
        learning: Collection[str] | None = None,
        compiles: bool | None = None,
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Returns the output, and the values after the call of what is not trainable, by key.

        Args:
            values: of all variables.
            images: (batch, height, width, channels).
            training: whether layers train.
            differentiates: whether a gradient will be asked for; only then loops keep values.
            learning: paths of the variables whose gradient will be asked for; None for all
                trainable ones.
            compiles: see `traced_for_xla`.
        """
        with traced_for_xla(compiles):
            if self._rows is None:
                return self._call_model(values, images, training)
            x, changed = images, {}
            for row in self._rows:
                x, new = self._call_row(
                    row, values, x, training, differentiates, learning, compiles
                )
                changed |= new
            return x, changed

    def _call_row(self, row, values, x, training, differentiates, learning, compiles):
        graph = None
        if len(row) > 1 or self._has_own_graph(row[0], differentiates):
            graph = self._graph(row, x, training, compiles)
        if graph is None:
            return _call_layers(row, values, x, training)
        first = row[0]
        weights = len(first.trainable_variables)
        inputs = [values[variable.path] for variable in _variables(first)]
        numbers = [
            tf.constant([getattr(part, name) for part, name in each], tf.float64)
            for each in zip(*map(varying_numbers, row), strict=True)
        ]
        if len(row) == 1:
            numbers = [number[0] for number in numbers]
            values = [*inputs, *numbers]
            if differentiates:
                x, changed = alone(graph, x, values, weights, self._remat)
            else:
                x, changed, _ = graph.forward(x, values)
        elif differentiates:
            learns = learning is None or not learning.isdisjoint(_paths(row))
            loop = UnitLoop(graph, len(row), weights)
            x, changed = loop.differentiable(x, inputs, numbers, self._remat, learns)
        else:
            x, changed = UnitLoop(graph, len(row), weights)(x, inputs, numbers)
        paths = [variable.path for variable in first.non_trainable_variables]
        return x, dict(zip(paths, changed, strict=True))

    def _call_model(self, values, images, training):
        trainable, others = self._model.trainable_variables, self._model.non_trainable_variables
        given = [[values[v.path] for v in group] for group in (trainable, others)]
        y, changed = self._model.stateless_call(*given, images, training=training)
        return y, {v.path: value for v, value in zip(others, changed, strict=True)}

    def _has_own_graph(self, layer, differentiates):
        """Whether a layer outside of loops is compiled by itself, or computed again."""
        recomputes = differentiates and self._remat.kind != "none"
        return _has_parts(layer) and (recomputes or self._compiles_units)

    def _graph(self, row, x, training, compiles):
        """Returns the graph of the units of a row; None where they cannot be in a loop."""
        first, images = row[0], tf.TensorSpec(x.shape, x.dtype)
        kept = [_statistics_kept(layer) for layer in row]
        key = signature(first), images, training, compiles
        try:
            if any(other != kept[0] for other in kept):
                raise NotPureError("some of them keep their BN statistics, others do not")
            if key not in self._graphs:
                self._graphs[key] = UnitGraph(
                    first, images, training, compiles, self._compiles_units
                )
            graph = self._graphs[key]
            if len(row) > 1 and graph.output != images:
                raise NotPureError("their output is of another shape or type than their input")
        except NotPureError as error:
            to_last = f" to {row[-1].name}" if len(row) > 1 else ""
            line = f"{first.name}{to_last}: {error}"
            self.unrolled += [] if line in self.unrolled else [line]
            return None
        return graph


def stacked(
    values: Mapping[str, Any], stacks: Iterable[Sequence[str]], stack: Callable = tf.stack
) -> dict[str, Any]:
    """Returns values by key from values by path.

    Args:
        values: of all variables of a stack, or of none.
        stacks: as of a `LoopedNetwork`.
        stack: makes one value of a list.
    """
    values = dict(values)
    for paths in stacks:
        if paths[0] in values:
            values |= {paths[0]: stack([values.pop(path) for path in paths])}
    return values


def unstacked(values: Values, stacks: Iterable[Sequence[str]]) -> dict[str, tf.Tensor]:
    """Returns values by path from values by key."""
    values = dict(values)
    for paths in stacks:
        if paths[0] in values:
            values |= dict(zip(paths, tf.unstack(values.pop(paths[0])), strict=True))
    return values


def _chain(model) -> list[keras.layers.Layer] | None:
    """Returns the layers that a model calls one after the other; None if it is no such chain."""
    layers = getattr(model, "layers", [])
    if len(getattr(model, "inputs", None) or ()) != 1 or len(model.outputs) != 1:
        return None
    x, chain = model.inputs[0], []
    try:
        for layer in layers:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if layer.input is not x:
                return None
            x = layer.output
            chain.append(layer)
    except (AttributeError, ValueError):
        # A layer that was called twice has no one input.
        return None
    own = {variable.path for layer in chain for variable in layer.variables}
    is_whole = x is model.outputs[0] and own == {variable.path for variable in model.variables}
    return chain if is_whole else None


def _rows(layers) -> Iterator[list[keras.layers.Layer]]:
    """Yields rows of neighbours of one signature."""
    for _, row in itertools.groupby(layers, signature):
        row = list(row)
        # Loops are for layers that have variables and keep the shape of images.
        if row[0].variables and row[0].input.shape == row[0].output.shape:
            yield row
        else:
            yield from ([layer] for layer in row)


def _stacks(row) -> Iterator[tuple[str, ...]]:
    if len(row) > 1:
        groups = ([*layer.trainable_variables, *layer.non_trainable_variables] for layer in row)
        for variables in zip(*groups, strict=True):
            yield tuple(variable.path for variable in variables)


def _call_layers(row: Sequence[keras.layers.Layer], values, x, training):
    """Calls the layers of a row one after the other; returns output and new values."""
    changed = []
    for number, layer in enumerate(row):
        keys = [variable.path for variable in _variables(row[0])]
        own = [values[key] if len(row) == 1 else values[key][number] for key in keys]
        mapping = list(zip(_variables(layer), own, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            x = layer(x, training=training)
        changed.append([scope.get_current_value(v) for v in layer.non_trainable_variables])
    paths = [variable.path for variable in row[0].non_trainable_variables]
    new = changed[0] if len(row) == 1 else map(tf.stack, zip(*changed, strict=True))
    return x, dict(zip(paths, new, strict=True))


def _variables(layer):
    return [*layer.trainable_variables, *layer.non_trainable_variables]


def _paths(row):
    return (variable.path for layer in row for variable in layer.trainable_variables)


def _has_parts(layer):
    return not isinstance(layer, keras.Model) and len([*layer._flatten_layers()]) > 1


def _statistics_kept(unit):
    return tuple(layer.keeps_statistics for layer in bn_layers(unit))
