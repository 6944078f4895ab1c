"""Files of foreign nets with random variables, without the packages that make them."""

import numpy as np
from safetensors.numpy import save_file

import keras_preact
from keras_preact.models import architectures
from keras_preact.models.foreign import FORMATS, scheme


def foreign_tensors(format, depth, classes=10):
    """The variables of a new net of a format by their names there."""
    description = FORMATS[format]
    arguments = {"projection": None, **description.arguments(depth, {})}
    layout = arguments["layout"]
    architecture = architectures.resolve(depth, description.stem, layout=layout)
    names = scheme.names(description, architecture, arguments, (), has_top=True)
    given = {name: value for name, value in arguments.items() if value is not None}
    network = keras_preact.ResNetV2(depth, **given, classes=classes, input_shape=(None, None, 3))
    tensors = {}
    for variable in network.variables:
        name, change = names[variable.path]
        tensors[name] = np.ascontiguousarray(change.to_theirs(np.asarray(variable)))
    return tensors


def write(path, tensors):
    save_file({name: np.ascontiguousarray(array) for name, array in tensors.items()}, path)
    return path
