"""A network as a chain of residual units, with what lies before, between and after them."""

import dataclasses
import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_preact.layers.batch_norm import traced_for_xla
from keras_preact.models.unit_signature import signature, varying_numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Chain:
    """A network taken apart. Nothing that is computed with it changes the network.

    Args:
        gaps: layers to call one after the other before each unit; often none. Those of the
            first unit are the stem.
        units: the residual units, in order.
        tail: layers to call after the last unit, to the network's output.
        has_softmax: whether the output is probabilities, not logits.
        traces_all: whether functions are traced at their first call; see `compute`.
    """

    gaps: tuple[tuple[keras.Layer, ...], ...]
    units: tuple[keras.Layer, ...]
    tail: tuple[keras.Layer, ...]
    has_softmax: bool
    traces_all: bool = False
    _calls: Counter = dataclasses.field(default_factory=Counter)
    _traced: dict = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(unit.name for unit in self.units)

    @property
    def stages(self) -> np.ndarray:
        """The stage of each unit, from 1: a unit that changes dimensions begins a new one."""
        begins = [
            bool(gap) or unit.input.shape != unit.output.shape
            for gap, unit in zip(self.gaps, self.units, strict=True)
        ]
        return 1 + np.cumsum([False, *begins[1:]])

    def from_last(self) -> Iterator[tuple[keras.Layer, ...]]:
        """Each unit with the layers up to the next one, from the last unit to the first."""
        above = ()
        for unit, gap in zip(self.units[::-1], self.gaps[::-1], strict=True):
            yield (unit, *above)
            above = gap

    def inputs(self, images: tf.Tensor, training: bool) -> list[tf.Tensor]:
        """The input x_l of each unit, then the output of the last: units + 1 tensors."""
        x, inputs = tf.convert_to_tensor(images), []
        for gap, unit in zip(self.gaps, self.units, strict=True):
            x = self.compute(call, gap, x, training)
            inputs.append(x)
            x = self.compute(call, (unit,), x, training)
        return [*inputs, x]

    def compute(self, function: Callable, layers: tuple[keras.Layer, ...], *arguments: Any) -> Any:
        """Calls function(layers, *arguments) and leaves all variables unchanged.

        Random states are unchanged as well, so every call draws the same numbers. The function
        is traced once for all layers that compute the same: a few times in a net of 1001
        layers, not 333 times. The first two calls are faster untraced; with `traces_all` they
        are traced as well, so that all calls round alike.
        """
        tensors = [argument for argument in arguments if not isinstance(argument, bool)]
        # None stands for a tensor; keeping the tensors themselves would take memory.
        flags = tuple(a if isinstance(a, bool) else None for a in arguments)
        specs = tf.nest.map_structure(tf.TensorSpec.from_tensor, tensors)
        key = function, *map(_key, layers), str(specs), flags
        self._calls[key] += 1
        if self._calls[key] <= 2 and not self.traces_all:
            with keras.StatelessScope():
                return function(layers, *arguments)
        values = [tf.convert_to_tensor(variable.value) for variable in _variables(layers)]
        if key not in self._traced:
            # The concrete function: TensorFlow would warn of one that it has to trace again.
            traced = tf.function(_stateless(function, layers, flags))
            self._traced[key] = traced.get_concrete_function(values, tensors)
        return self._traced[key](values, tensors)


def _stateless(function, template, flags):
    """The function without side effects, of (values of the template's variables, tensors)."""

    def call(values, tensors):
        mapping = list(zip(_variables(template), values, strict=True))
        tensors = iter(tensors)
        arguments = [next(tensors) if flag is None else flag for flag in flags]
        with keras.StatelessScope(state_mapping=mapping), traced_for_xla(False):
            return function(template, *arguments)

    return call


def _variables(layers):
    return [variable for layer in layers for variable in layer.variables]


def _key(layer):
    numbers = tuple(getattr(part, name) for part, name in varying_numbers(layer))
    return signature(layer), numbers


def call(layers: tuple[keras.Layer, ...], x: tf.Tensor, training: bool) -> tf.Tensor:
    """Calls layers one after the other, the first one on x."""
    for layer in layers:
        x = layer(x, training=training)
    return x


def take_apart(model: keras.Model, traces_all: bool = False) -> Chain:
    """Takes a network apart into a chain of residual units.

    A unit is a layer whose `call` takes `return_taps`; it may lie in a nested network, such as
    a backbone. Other layers belong to all paths.

    Args:
        model: functional or sequential, with one input and one output.
        traces_all: see `Chain`.

    Raises:
        ValueError: if it has no units, or they are not called one after the other.
    """
    if not model.built:
        raise ValueError(f"model must be built. Received: {model.name}, which is not")
    if not _has_units(model):
        raise ValueError(
            "model must have residual units: layers whose call takes return_taps and then "
            "returns keras_preact.layers.Taps, as that of ResidualUnit does. "
            f"Received: {model.name}, without any"
        )
    gaps, units = [()], []
    for layer in _pieces(model):
        if _is_unit(layer):
            units.append(layer)
            gaps.append(())
        else:
            gaps[-1] += (layer,)
    return Chain(tuple(gaps[:-1]), tuple(units), gaps[-1], _ends_in_softmax(gaps[-1]), traces_all)


def _ends_in_softmax(layers):
    if not layers:
        return False
    if isinstance(layers[-1], keras.Model):
        return _ends_in_softmax(layers[-1].layers)
    activation = getattr(layers[-1], "activation", None)
    return isinstance(layers[-1], keras.layers.Softmax) or activation is keras.activations.softmax


def _is_unit(layer):
    return "return_taps" in inspect.signature(layer.call).parameters


def _has_units(layer):
    return _is_unit(layer) or any(map(_has_units, getattr(layer, "layers", ())))


def _pieces(model):
    """Units and what lies between them, to be called one after the other."""
    for layer in model.layers if isinstance(model, keras.Sequential) else _cut(model):
        if isinstance(layer, keras.Model) and _has_units(layer):
            yield from _pieces(layer)
        else:
            yield layer


def _cut(model):
    """A functional model cut before and after each layer that has units."""
    calls = []

    def record(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        if _has_units(layer):
            calls.append((layer, args[0], outputs))
        return outputs

    # A second graph over the same layers: their first calls may belong to another model.
    copy = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=record)
    if len(copy.inputs) != 1 or len(copy.outputs) != 1:
        raise ValueError(
            "model must have one input and one output. "
            f"Received: {len(copy.inputs)} and {len(copy.outputs)}"
        )
    start = copy.inputs[0]
    for layer, x, y in calls:
        yield from _between(start, x, layer.name)
        yield layer
        start = y
    yield from _between(start, copy.outputs[0], "its output")


def _between(start, end, name):
    if start is not end:
        try:
            yield keras.Model(start, end)
        except ValueError as error:
            raise ValueError(
                "The residual units of model must be called one after the other, each on the "
                f"output of the one before alone. Received: a model in which {name} is not"
            ) from error
