"""Gives a network that is there the weights of a file: what `ResNetV2(weights=...)` does."""

import json

import keras

from keras_preact.models.foreign import files, own, scheme
from keras_preact.models.foreign.assign import assign, trainable_paths
from keras_preact.models.foreign.recognize import is_foreign, recognize
from keras_preact.models.foreign.scheme import RefusedError


def load_weights(model: keras.Model, path: str) -> None:
    """Gives a network the weights of a file of the same network.

    A classifier in the file is left out where the network has none.

    Args:
        model: to receive them.
        path: of a `.weights.h5`, `.keras` or `.safetensors` file.

    Raises:
        ValueError: if the file is damaged or of another network, also where all shapes agree, or
            has another number of classes; one line then says so.
    """
    file = files.read(path)
    if file.config is not None:
        own.check_code(file.config, path)
    tensors, names = file.tensors, None
    is_timm = file.metadata.get("names", own.NAME) != own.NAME
    if is_timm or is_foreign(tensors):
        found = recognize(tensors, path)
        arguments = found.arguments
        names = scheme.names(found.format, found.architecture, arguments, tensors, found.has_top)
        if not is_timm:
            _check_arguments(arguments, model, path)
    elif own.STEM not in tensors and file.kind in ("weights.h5", "keras"):
        # Layers of the user's own, or an early version of Keras, which left names out.
        _load_by_keras(model, path)
        return
    if own.is_own(file) and (recorded := own.recorded_facts(file)) is not None:
        own.check_same(recorded, model, path)
    table = names or {name: (name, None) for name in tensors}
    tensors = _without_top(model, tensors, table, path)
    if names is None and _has_names_of_its_own(model, tensors):
        _load_by_keras(model, path)
        return
    assign(model, tensors, path, "weights", names)


def _without_top(model, tensors, table, path):
    """The variables that the network needs; checks the number of classes."""
    top = [path for path in table if path.startswith("logits/")]
    bias = table.get("logits/bias", (None,))[0]
    if own.CLASSIFIER not in trainable_paths(model):
        left_out = {table[path][0] for path in top}
        return {name: array for name, array in tensors.items() if name not in left_out}
    if bias in tensors:
        own.check_class_count(len(tensors[bias]), model.get_layer("logits").units, path)
    return tensors


def _has_names_of_its_own(model, tensors):
    """Whether Keras has numbered layers of the user's own, so that names tell nothing."""
    arguments = getattr(model, "arguments", None)
    is_ours = arguments is not None and isinstance(arguments["shortcut"], str)
    return not is_ours and set(tensors) != set(trainable_paths(model))


def _load_by_keras(model, path):
    try:
        model.load_weights(path)
    except (KeyError, OSError, TypeError, ValueError) as error:
        # Keras lists all objects and weights.
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"weights must be of a network of the same arguments. Received: weights={path!r}: "
            f"{reason}"
        ) from error


def _check_arguments(theirs, model, path):
    ours = getattr(model, "arguments", None)
    if ours is None:
        raise RefusedError(
            f"weights must be of a network of this package for units of a factory. Received: {path}"
        )
    for name, value in theirs.items():
        mine = ours[name]
        if name == "projection" and mine is None:
            continue  # the same default, as shapes tell
        if name == "layout" and {mine, value} == {"paper", "timm"} and ours["block"] != "basic":
            continue
        if mine != value:
            raise RefusedError(
                "Weights must be of the same network, as equal shapes do not tell. Received: "
                f"{path}, of a net with {name}={value!r}; this net has {name}={json.dumps(mine)}"
            )
