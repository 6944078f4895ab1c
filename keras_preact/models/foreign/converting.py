"""Makes a network of a file of weights, whoever made it."""

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_preact.layers import Preprocessing
from keras_preact.models.foreign import files, own, scheme
from keras_preact.models.foreign.assign import (
    Report,
    assign,
    described,
    trainable_paths,
)
from keras_preact.models.foreign.keras_applications import DEPTHS as KERAS_DEPTHS
from keras_preact.models.foreign.recognize import FORMATS, Recognized, recognize
from keras_preact.models.foreign.scheme import RefusedError
from keras_preact.models.network import Network
from keras_preact.models.resnet import ResNetV2
from keras_preact.support.choices import one_of

IMAGENET = "imagenet"
# Beside depth and layout.
ARGUMENTS = (
    *("stem", "block", "unit", "shortcut", "projection"),
    *("width_multiplier", "stochastic_depth_rate"),
)


@dataclasses.dataclass(frozen=True)
class Conversion:
    """A network made of a file, and how.

    Args:
        network: in float32, with its preprocessing if that is known.
        report: of its variables.
        file: that it was made of; None for a run.
        recognized: the foreign network; None for one of ours.
    """

    network: Network
    report: Report
    file: files.File | None = None
    recognized: Recognized | None = None


def convert(
    source: str | os.PathLike,
    *,
    format: str | None = None,
    depth: int | None = None,
    layout: str | None = None,
    input_shape: Sequence[int | None] | None = None,
    tell: Callable[[str], None] = print,
    **arguments: Any,
) -> Network:
    """Returns the network in a file of weights that timm, Keras, torchvision or we made.

    The file tells what it holds. Arguments that say something else are refused, and so is any
    variable that is left over, missing, or of another shape.

    Args:
        source: path of a safetensors, npz, HDF5, `.keras` or PyTorch file; or "imagenet" for
            the weights that keras.applications downloads.
        format: "timm", "keras", "torchvision", "akamaster" or "keras_preact"; by default the
            names of the variables tell.
        depth: of the network; files of `.weights.h5` with our own variables need it.
        layout: as for `ResNetV2`.
        input_shape: (height, width, channels) of the network; by default foreign nets take
            images of any size, and ours are as they were saved.
        tell: takes the report, a line.
        **arguments: others of `ResNetV2`, for files that do not record them.

    Returns:
        A float32 `Network` from preprocessed images to logits, with its preprocessing.

    Raises:
        ValueError: if the file is damaged, holds code, is of another network than the arguments
            say, or of none that the builders make.
        ModuleNotFoundError: if the package that reads the file is not installed.
        ConnectionError: if "imagenet" cannot be downloaded.
    """
    given = {"depth": depth, "layout": layout, **arguments}
    done = conversion(source, format, given, input_shape)
    tell(str(done.report))
    return done.network


def conversion(
    source: str | os.PathLike,
    format: str | None,
    given: dict[str, Any],
    input_shape: Sequence[int | None] | None = None,
) -> Conversion:
    """Does what `convert` says, and returns all of it.

    Args:
        source: as for `convert`.
        format: as for `convert`.
        given: depth, layout and `ARGUMENTS`, as far as they are not None.
        input_shape: as for `convert`.
    """
    given = {name: value for name, value in given.items() if value is not None}
    for name in given:
        one_of("argument", name, ("depth", "layout", *ARGUMENTS))
    if format is not None:
        one_of("format", format, (*FORMATS, own.NAME))
    source = os.fspath(source)
    file = _downloaded(format, given) if source == IMAGENET else files.read(source)
    if own.is_own(file):
        if format not in (None, own.NAME):
            raise ValueError(
                f"format must be {own.NAME!r} for {file.path}, a network of this package. "
                f"Received: format={format!r}"
            )
        return _own(file, given, input_shape)
    if format == own.NAME:
        raise ValueError(
            f"The variables of format={own.NAME!r} must be named as in a network of this package, "
            f"such as {own.STEM}. Received: {file.path}, with {_some(file.tensors)}"
        )
    done = _foreign(file, format, given, input_shape)
    if source == IMAGENET:
        names = _imagenet_names(done.network.output_shape[-1])
        done.network.preprocessing = done.network.preprocessing.replace(class_names=names)
    return done


def _some(tensors):
    return ", ".join(sorted(tensors)[:3]) or "no variable"


def _foreign(file, format, given, input_shape):
    found = recognize(file.tensors, file.path, format)
    arguments = found.arguments | _agreeing(found, given, file.path)
    names = scheme.names(found.format, found.architecture, arguments, file.tensors, found.has_top)
    # Their shapes are checked below.
    channels = _dimension(file.tensors, names, own.STEM, 2, 3)
    shape = tuple(input_shape or (None, None, channels))
    classes = _dimension(file.tensors, names, "logits/bias", 0, None) if found.has_top else None
    pooling = None if found.has_top or found.format.name == "keras" else "avg"
    with own.in_float32():
        network = ResNetV2(
            **arguments,
            include_top=found.has_top,
            classes=classes,
            pooling=pooling,
            input_shape=shape,
        )
    report = assign(
        network, file.tensors, file.path, found.format.title, names, ignored=file.ignored
    )
    network.preprocessing = _preprocessing(found, shape)
    return Conversion(network, report, file, found)


def _dimension(tensors, names, path, axis, default):
    """A dimension of one of our variables, from the file; the default if it is not there."""
    name, change = names.get(path, (None, None))
    array = tensors.get(name)
    if array is None or array.ndim not in change.ranks or not array.size:
        return default
    return change.to_ours(array).shape[axis]


def _preprocessing(found, shape) -> Preprocessing:
    preprocessing = found.format.preprocessing(found.arguments["depth"])
    height, width, channels = shape
    if height and width:
        sized = (height, width, 3)
        preprocessing = preprocessing.replace(image_shape=sized)
    return preprocessing.with_channels(channels)


def _agreeing(found: Recognized, given, source):
    """The given arguments that may be chosen; refuses those that contradict the file."""
    depth = found.arguments["depth"]
    fixed = {
        "projection": found.architecture.projection(None),
        "block": found.architecture.block,
        "shortcut": "identity",
        "width_multiplier": 1.0,
        **found.arguments,
    }
    chosen = {}
    for name, value in given.items():
        if name == "stochastic_depth_rate":
            chosen[name] = value
            continue
        allowed = found.format.layouts(depth) if name == "layout" else (fixed[name],)
        if value not in allowed:
            raise RefusedError(
                f"{name} must be {' or '.join(map(repr, allowed))} for {source}, "
                f"{found.format.title} of depth {depth}: with another value the shapes may agree, "
                f"but the network computes something else. Received: {name}={value!r}"
            )
        chosen[name] = value
    return chosen


def _own(file, given, input_shape):
    if file.kind == "keras":
        return _own_keras(file, given, input_shape)
    if file.metadata.get("format") == own.NAME:
        arguments, top, preprocessing = _recorded(file)
        if arguments is None:
            raise RefusedError(
                "The network must be of named units to be built from its file. Received: "
                f"{file.path}, of a unit factory: build it and pass weights={file.path!r}"
            )
        check_given(given, arguments, file.path)
        return _rebuilt(file, arguments, top, preprocessing, input_shape)
    if "depth" not in given:
        raise ValueError(
            "depth must be given, and any argument of ResNetV2 that was not its default: "
            f"{file.path} holds the variables of a network, but not which network it was. "
            "Received: depth=None"
        )
    shapes = {name: (0, 0, 0, *array.shape) for name, array in file.tensors.items()}
    has_top = own.CLASSIFIER in shapes
    top = {
        "include_top": has_top,
        "classes": shapes[own.CLASSIFIER][-1] if has_top else None,
        "input_shape": (None, None, shapes[own.STEM][-2]),
    }
    return _rebuilt(file, given, top, None, input_shape)


def _recorded(file):
    """(arguments, top, preprocessing) in the metadata of a file that anyone may have written."""
    with files.reading(file.path):
        arguments, top, saved = (
            json.loads(file.metadata[name]) for name in ("arguments", "top", "preprocessing")
        )
        for given, known in ((arguments or {}, ("depth", "layout", *ARGUMENTS)), (top, own.TOP)):
            for name in given:
                one_of("metadata", name, known)
            own.check_code(given, file.path)
        return arguments, top, saved and Preprocessing.from_config(saved)


def _rebuilt(file, arguments, top, preprocessing, input_shape):
    if input_shape is not None:
        top = {**top, "input_shape": tuple(input_shape)}
    with own.in_float32():
        network = ResNetV2(**deserialized(arguments), **top)
    if recorded := own.recorded_facts(file):
        own.check_same(recorded, network, file.path)
    names = _names_of_own(file, arguments, top["include_top"])
    report = assign(network, file.tensors, file.path, "a network of this package", names)
    network.preprocessing = preprocessing
    return Conversion(network, report, file)


def deserialized(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a builder from JSON; orders and shortcuts are configurations there."""
    return {
        name: keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
    }


def _names_of_own(file, arguments, has_top):
    if not file.metadata.get("names", "").startswith("timm "):
        return None
    found = recognize(file.tensors, file.path, "timm")
    return scheme.names(found.format, found.architecture, arguments, file.tensors, has_top)


def _own_keras(file, given, input_shape):
    network = own.as_network(own.load_keras(file.path))
    if given and network.arguments is None:
        raise RefusedError(
            f"{', '.join(given)} must not be given for {file.path}, whose network has units of "
            "a factory"
        )
    check_given(given, network.arguments or {}, file.path)
    if input_shape is not None and tuple(input_shape) != network.input_shape[1:]:
        network = _resized(network, input_shape, file.path)
    report = Report(
        file.path,
        "a network of this package",
        described(network),
        tuple(trainable_paths(network)),
        ignored=file.ignored,
    )
    return Conversion(network, report, file)


def _resized(network, input_shape, source):
    if network.arguments is None:
        raise ValueError(
            f"input_shape must be {network.input_shape[1:]} for {source}, whose network has units "
            f"of a factory. Received: input_shape={tuple(input_shape)}"
        )
    top = {**own.top_of(network), "input_shape": tuple(input_shape)}
    with own.in_float32():
        copy = ResNetV2(**deserialized(network.arguments), **top, name=network.name)
    copy.set_weights(network.get_weights())
    copy.preprocessing = network.preprocessing
    return copy


def check_given(given: dict[str, Any], recorded: dict[str, Any], source: str) -> None:
    """Refuses arguments of a builder that contradict those that a source records.

    Args:
        given: the arguments; None says nothing.
        recorded: by the source.
        source: for the error.

    Raises:
        RefusedError: at the first one that differs.
    """
    for name, value in given.items():
        if value is None:
            continue
        if not isinstance(value, str | int | float):
            value = keras.saving.serialize_keras_object(value)
        if value != recorded[name]:
            raise RefusedError(
                f"{name} must be {recorded[name]!r}, as {source} records: with another value the "
                "shapes may agree, but the network computes something else. Received: "
                f"{name}={value!r}"
            )


def _downloaded(format, given):
    """The weights of keras.applications as a file that lies there already."""
    if format not in (None, "keras"):
        raise ValueError(f"format must be 'keras' for {IMAGENET!r}. Received: format={format!r}")
    depth = given.get("depth")
    if depth not in KERAS_DEPTHS:
        raise ValueError(
            f"depth must be one of {', '.join(map(str, KERAS_DEPTHS))} for {IMAGENET!r}. "
            f"Received: depth={depth!r}"
        )
    builder = getattr(keras.applications, f"ResNet{depth}V2")
    try:
        model = builder(weights=IMAGENET, classifier_activation=None)
    except Exception as error:
        # Keras raises a bare Exception where there is no network.
        reason = " ".join(str(error).split())[:300]
        raise ConnectionError(
            f"The weights of keras.applications.ResNet{depth}V2 cannot be downloaded: {reason}. "
            "Where there is a network, keras.applications.ResNet"
            f"{depth}V2().save('net.keras') writes them to a file, which can be converted here."
        ) from error
    tensors = {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in model.layers
        for variable in layer.variables
    }
    return files.File(f"keras.applications.ResNet{depth}V2", "keras", tensors)


def _imagenet_names(classes):
    """The names of ImageNet's classes, which Keras downloads; empty if it cannot."""
    decode = keras.applications.imagenet_utils.decode_predictions
    try:
        # The largest comes first, so that the answer is in the order of the labels.
        [answers] = decode(np.arange(classes, 0, -1.0)[None], top=classes)
    except Exception:
        return ()
    names = [name for _, name, _ in answers]
    # Two names are those of two classes each.
    return tuple(
        name if names.count(name) == 1 else f"{name}_{identity}" for identity, name, _ in answers
    )


__all__ = ["ARGUMENTS", "IMAGENET", "Conversion", "conversion", "convert"]
