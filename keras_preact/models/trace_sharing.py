"""Units of one shape, traced once: deep nets then start training in a fraction of the time."""

import contextlib
import json

import keras
import tensorflow as tf

from keras_preact.layers import ResidualUnit
from keras_preact.layers.batch_norm import bn_layers, is_traced_for_xla, traced_for_xla


def share_traces(model: keras.Model) -> keras.Model:
    """A model of the same layers and variables, in which equal units share one traced function.

    A unit is a pure function of its input and its variables, so TensorFlow needs to trace
    each shape of unit only once: 6 times instead of 333 in a net of 1001 layers. Layers
    other than `ResidualUnit` are called as they are.

    Args:
        model: functional and built.

    Returns:
        A model to train, with the variables of the given model. Save and export the given
        model.
    """
    functions = {}

    def share(layer):
        # A subclass may compute what its configuration does not say.
        if type(layer) is not ResidualUnit:
            return layer
        key = signature(layer)
        if key not in functions:
            functions[key] = _make_function(layer)
        return _SharedUnit(layer, functions[key])

    return keras.models.clone_model(model, clone_function=share)


class _SharedUnit(keras.layers.Layer):
    """Calls a unit through a function that other units of its signature call too."""

    def __init__(self, unit, function):
        super().__init__(name=unit.name, dtype=unit.dtype_policy, autocast=False)
        self.unit, self._function = unit, function

    def build(self, input_shape):
        self.built = True

    def call(self, x, training=None):
        variables = self.unit.trainable_variables, self.unit.non_trainable_variables
        values = [[tf.convert_to_tensor(v) for v in group] for group in variables]
        y, changed = self._function(
            *values,
            x,
            training=bool(training),
            xla=is_traced_for_xla(),
            kept=tuple(layer.keeps_statistics for layer in bn_layers(self.unit)),
        )
        if training:
            for variable, value in zip(variables[1], changed, strict=True):
                variable.assign(value)
        return y

    def compute_output_shape(self, input_shape):
        return self.unit.compute_output_shape(input_shape)


def _make_function(unit):
    def call(trainable, non_trainable, x, training, xla, kept):
        with traced_for_xla(xla), _keeping_statistics(unit, kept):
            return unit.stateless_call(trainable, non_trainable, x, training=training)

    return tf.function(call)


@contextlib.contextmanager
def _keeping_statistics(unit, kept):
    """Lends the traced unit the attributes of the one that calls its function."""
    layers = bn_layers(unit)
    own = [layer.keeps_statistics for layer in layers]
    try:
        for layer, value in zip(layers, kept, strict=True):
            layer.keeps_statistics = value
        yield
    finally:
        for layer, value in zip(layers, own, strict=True):
            layer.keeps_statistics = value


def signature(unit: ResidualUnit) -> str:
    """A key that is the same for units that compute the same function of input and variables."""
    config = {**unit.get_config(), "name": None}
    variables = [
        (v.path.partition("/")[2], tuple(v.shape), v.dtype, v.trainable) for v in unit.variables
    ]
    return json.dumps([config, variables], sort_keys=True, default=str)
