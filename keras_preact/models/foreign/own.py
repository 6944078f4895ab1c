"""Files of our own networks: the network that a file records, and whether it is the one at hand.

Bias-free nets of one depth have variables of the same shapes, so that shapes cannot tell a wrong
pairing. A `.keras` file has the configuration of each layer, and safetensors written here record
it too: it is compared.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_preact.layers import BLOCKS, LAYOUTS, grouped, shortcuts
from keras_preact.models import architectures
from keras_preact.models.foreign import files
from keras_preact.models.foreign.assign import trainable_paths
from keras_preact.models.foreign.scheme import RefusedError
from keras_preact.models.network import Network, saved_choice
from keras_preact.support import own_code
from keras_preact.support.text import shown

NAME = "keras_preact"
STEM = "stem_conv/kernel"
CLASSIFIER = "logits/kernel"
# Layers that hold code, or read it from somewhere.
_CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer")
# What a layer of a saved network computes does not depend on these.
_IRRELEVANT = {
    *("name", "dtype", "trainable", "stochastic_depth_rate", "synchronized", "momentum"),
    *("batch_shape", "initial_bias", "autocast"),
}
_IRRELEVANT_ENDS = ("_initializer", "_regularizer", "_constraint")
# Of files that are older than these arguments.
_DEFAULTS = {"dilation_rate": [1, 1], "zero_padded": False}
# What `top_of` returns.
TOP = ("input_shape", "include_top", "classes", "classifier_activation", "pooling")
# They stand above the features, and may be others.
_TOP = ("logits", "predictions")


def is_own(file: files.File) -> bool:
    """Whether a file was made from a network of this package."""
    return file.metadata.get("format") == NAME or STEM in file.tensors


def facts(layers: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What decides on the function of each layer, by its name.

    Args:
        layers: of a functional model's configuration, as JSON or as Keras returns it.
    """
    found = {}
    for layer in json.loads(json.dumps(layers, default=str)):
        kind, name = layer["class_name"], layer["config"]["name"]
        if kind == "InputLayer" or name in _TOP:
            continue
        found[name] = {"class": kind, **_relevant(layer["config"])}
        if kind == "ResidualUnit" and "build_config" in layer:
            channels = layer["build_config"]["input_shape"][-1]
            found[name] |= _unit_facts(found[name], channels)
            del found[name]["first_in_network"]
    return found


def _unit_facts(unit, input_channels):
    """The same of a unit where choices that come to the same are the same."""
    layout = LAYOUTS[unit.pop("layout", "paper")]
    changes_channels = input_channels != unit["filters"] * BLOCKS[unit["block"]][1]
    changes = changes_channels or unit["strides"] > 1
    pools = layout.pools_shortcut and not changes_channels
    is_activated = unit["first_in_network"] or (changes and not pools)
    return {
        "shortcut_from": "pre-activated" if is_activated else "raw",
        "projection": ("pooling" if pools else unit["projection"]) if changes else None,
        "strided_convolution": unit["strided_convolution"] if unit["strides"] > 1 else None,
        "biases": layout.biases,
        "epsilon": layout.bn_epsilon,
    }


def _relevant(value):
    if isinstance(value, list):
        return [_relevant(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if "class_name" in value:
        return [value["class_name"], _relevant(value.get("config"))]
    return {
        name: _relevant(entry)
        for name, entry in value.items()
        if name not in _IRRELEVANT and not name.endswith(_IRRELEVANT_ENDS)
    }


def check_same(recorded: Mapping[str, Mapping], model: keras.Model, source: str) -> None:
    """Refuses a file whose layers compute something else than those of the same name in a model.

    Args:
        recorded: `facts` of the file.
        model: to receive its variables.
        source: the file, for the error.

    Raises:
        RefusedError: at the first difference; it names the layer and both values.
    """
    here = facts(model.get_config()["layers"])
    for layer, there in recorded.items():
        for name in sorted({*there, *here.get(layer, there)}):
            default = _DEFAULTS.get(name)
            theirs, ours = there.get(name, default), here.get(layer, there).get(name, default)
            if theirs != ours:
                raise RefusedError(
                    "Weights must be of the same network, as equal shapes do not tell. Received: "
                    f"{source}, in which {layer} has {name}={_short(theirs)}; in this net it has "
                    f"{name}={_short(ours)}"
                )


def _short(value):
    return (
        json.dumps(value)
        if value is None or isinstance(value, str | int | float)
        else shown(f"{value}")
    )


def recorded_facts(file: files.File) -> dict[str, dict[str, Any]] | None:
    """The `facts` of the network that a file records; None if it records none."""
    if file.metadata.get("format") == NAME:
        return json.loads(file.metadata["layers"])
    if file.config and "layers" in file.config.get("config", {}):
        return facts(file.config["config"]["layers"])
    return None


def check_class_count(file_classes: int, classes: int, source: str) -> None:
    """Raises ValueError in one line where a file has another number of classes than a net."""
    if file_classes != classes:
        raise ValueError(
            f"weights has {file_classes:,} classes, this net {classes:,}: pass "
            f"classes={file_classes}, or include_top=False and a classifier of your own. "
            f"Received: weights={source!r}"
        )


def load_keras(path: str) -> keras.Model:
    """Loads a `.keras` file without running code from it.

    Raises:
        RefusedError: if it has a Lambda layer, or a class that is neither Keras' nor registered.
        ValueError: if it is damaged, or a variable is not finite.
    """
    file_kind = files.sniff(path)
    if file_kind != "keras":
        raise ValueError(f"{path} must be a .keras file. Received: {file_kind}")
    with files.reading(path):
        check_code(files.keras_config(path), path)
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    grouped.use_in_keras_layers(model)
    for variable in trainable_paths(model).values():
        values = np.asarray(variable)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ValueError(f"A variable must be finite. Received: {variable.path} in {path}")
    return model


def check_code(config: dict[str, Any], path: str) -> None:
    """Refuses the configuration of a `.keras` file that could run code or import strangers.

    Raises:
        RefusedError: at a Lambda layer, or a class that is neither Keras' nor registered.
    """
    for part in _parts(config):
        _check_class(part, path)


def _parts(value) -> Iterator[dict]:
    if isinstance(value, list):
        for entry in value:
            yield from _parts(entry)
    elif isinstance(value, dict):
        if "class_name" in value:
            yield value
        for entry in value.values():
            yield from _parts(entry)


def _check_class(part, path):
    name, registered = part["class_name"], part.get("registered_name")
    module = str(part.get("module") or "keras")
    if name in _CODE:
        raise RefusedError(
            f"A file of weights must hold no code. Received: {path}, with a layer of class {name}, "
            "which could run anything. If you trust whoever made it, load it with "
            "keras.models.load_model(path, safe_mode=False) and save its weights alone"
        )
    is_known = module.partition(".")[0] in ("keras", "builtins") or own_code.find_class(
        module, name
    )
    if not is_known and keras.saving.get_registered_object(registered or name) is None:
        raise RefusedError(
            "The classes in a file must be those of Keras, of this package, or registered "
            f"before. Received: {path}, with {shown(f'{module}.{name}')}. Import the module that "
            "registers it"
        )


@contextlib.contextmanager
def in_float32() -> Iterator[None]:
    """A context in which new layers compute in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def as_network(model: keras.Model) -> Network:
    """Returns a float32 `Network` with the layers, or copies of the layers, of a model."""
    records = {
        "arguments": getattr(model, "arguments", None),
        "preprocessing": getattr(model, "preprocessing", None),
    }
    dtypes = {layer.dtype_policy.name for layer in model.layers}
    with in_float32():
        if dtypes != {"float32"}:
            copy = keras.models.clone_model(model, clone_function=_float32_copy, recursive=True)
            copy.set_weights(model.get_weights())
            model = copy
        if not isinstance(model, Network):
            model = Network(model.inputs[0], model.outputs[0], name=model.name)
    model.arguments = records["arguments"] or inferred_arguments(model)
    model.preprocessing = records["preprocessing"]
    return model


def _float32_copy(layer):
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


def top_of(model: keras.Model) -> dict[str, Any]:
    """The arguments of `ResNetV2` that `arguments_of` leaves out, of a model."""
    names = [layer.name for layer in model.layers]
    pools = [kind for kind in ("avg", "max") if f"{kind}_pool" in names]
    has_top = "logits" in names
    activation = None
    if "predictions" in names:
        activation = keras.activations.serialize(model.get_layer("predictions").activation)
    return {
        "input_shape": list(model.input_shape[1:]),
        "include_top": has_top,
        "classes": model.output_shape[-1] if has_top else None,
        "classifier_activation": activation,
        "pooling": None if has_top or not pools else pools[0],
    }


def deserialized(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a builder from JSON; orders and shortcuts may be configurations there."""
    return {
        name: shortcuts.deserialize(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
    }


def inferred_arguments(model: keras.Model) -> dict[str, Any] | None:
    """The arguments of `ResNetV2` for a model of an older file, from its layers; None if unsure."""
    units = [layer for layer in model.layers if type(layer).__name__ == "ResidualUnit"]
    if not units:
        return None
    first, last = units[0], units[-1]
    stem_conv = model.get_layer("stem_conv")
    stem = "imagenet" if stem_conv.kernel_size == (7, 7) else "cifar"
    counts: dict[str, int] = {}
    for unit in units:
        stage = unit.name.partition("_")[0]
        counts[stage] = counts.get(stage, 0) + 1
    block = first.kind.block
    if stem == "cifar":
        per_unit = {"single": 1, "basic": 2, "bottleneck": 3}[block]
        depth = per_unit * len(units) + 2
    else:
        wanted = (block, tuple(counts.values()))
        table = architectures.IMAGENET_DEPTHS.items()
        depth = next((depth for depth, found in table if found == wanted), None)
    if depth is None:
        return None
    arguments = {
        "depth": depth,
        "stem": stem,
        "block": block,
        "unit": saved_choice(first.order),
        "shortcut": saved_choice(first.shortcut),
        "projection": first.kind.projection,
        "width_multiplier": stem_conv.filters / architectures.STEMS[stem].filters,
        "stochastic_depth_rate": last.stochastic_depth_rate,
        "layout": first.kind.layout,
    }
    from keras_preact.models.resnet import ResNetV2  # which needs this module for its weights

    try:
        with in_float32():
            chosen = deserialized(arguments)
            candidate = ResNetV2(**chosen, input_shape=model.input_shape[1:], include_top=False)
        check_same(facts(model.get_config()["layers"]), candidate, model.name)
    except ValueError:
        return None
    return arguments
