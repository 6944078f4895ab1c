"""Signatures of units: equal for layers that compute the same function of input and variables."""

import dataclasses
import types
from collections.abc import Hashable, Mapping

import keras
import numpy as np

from keras_preact.layers.unit_plan import UnitPlan

# Of every layer, whatever it computes: names, and Keras' own records.
_RECORDS = {
    *vars(keras.layers.Layer()),
    *("_self_unconditional_checkpoint_dependencies", "_self_unconditional_dependency_names"),
    *("_self_unconditional_deferred_dependencies", "_self_update_uid"),
    *("_self_name_based_restores", "_self_saveable_object_factories"),
} - {"_dtype_policy", "_trainable", "autocast"}
# They have done their work once a layer is built.
_DONE = (keras.initializers.Initializer, keras.regularizers.Regularizer)


def signature(layer: keras.layers.Layer) -> Hashable:
    """Returns a key that is equal for layers that compute the same.

    It compares classes and attributes, those of the parts of a layer too. Attributes that it
    cannot compare, such as functions made for each layer, make layers differ; a nested model equals
    itself alone. Layers may vary in
    the numbers that their class lists in `varies_in_loops`.

    Args:
        layer: built.
    """
    if isinstance(layer, keras.Model):
        return id(layer)
    found: dict[int, int] = {}
    structure = _of_layer(layer, found)
    # Values are handed over in the order of these lists, whatever attributes they belong to.
    variables = (*layer.trainable_variables, *layer.non_trainable_variables)
    return structure, tuple(found.get(id(variable), variable.path) for variable in variables)


def varying_numbers(layer: keras.layers.Layer) -> list[tuple[keras.layers.Layer, str]]:
    """Returns the parts of a layer and their attributes in which layers of one signature vary."""
    return [
        (part, name)
        for part in layer._flatten_layers()
        for name in getattr(type(part), "varies_in_loops", ())
    ]


def _of_layer(layer, found):
    # A part may know the layer that it is a part of.
    if id(layer) in found:
        return found[id(layer)]
    found[id(layer)] = len(found)
    ignored = _RECORDS.union(getattr(type(layer), "varies_in_loops", ()))
    return type(layer), tuple(
        (name, _of(value, found))
        for name, value in sorted(vars(layer).items())
        if name not in ignored
    )


def _of(value, found):
    """Returns a hashable that is equal for values of equal effect; numbers what it finds."""
    match value:
        case keras.Model():
            return id(value)
        case keras.layers.Layer():
            return _of_layer(value, found)
        case keras.Variable():
            number = found.setdefault(id(value), len(found))
            return number, tuple(value.shape), value.dtype, value.trainable
        case keras.DTypePolicy():
            return value.name
        case keras.random.SeedGenerator():
            return type(value), _of(value.state, found)
        case UnitPlan():
            return dataclasses.replace(value, name="")
        case list() | tuple():
            return type(value).__name__, *(_of(each, found) for each in value)
        case Mapping():
            return tuple((key, _of(value[key], found)) for key in sorted(value, key=str))
        case np.ndarray():
            return value.shape, value.dtype.str, value.tobytes()
        case float():
            return repr(value)
        case types.MethodType():
            return value.__func__, _of(value.__self__, found)
    if isinstance(value, _DONE):
        return type(value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    # True and 1 would be equal.
    return type(value), value
