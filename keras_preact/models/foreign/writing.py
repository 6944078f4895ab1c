"""Writes safetensors: with timm's names where timm has the network, else with ours."""

import json
import os
import pathlib
from typing import Any

import keras
import numpy as np

from keras_preact.models import architectures
from keras_preact.models.foreign import own, scheme, timm
from keras_preact.models.foreign.assign import trainable_paths
from keras_preact.models.network import preprocessing_of
from keras_preact.support.extras import INSTALL
from keras_preact.support.text import shown

_OURS = (
    "import keras_preact, then keras_preact.convert(PATH), or ResNetV2(..., weights=PATH) for a "
    "net of the same arguments"
)


def timm_name(model: keras.Model) -> str | None:
    """The name of timm's model that computes the same as a network of ours; None without one."""
    arguments = getattr(model, "arguments", None)
    if arguments is None or not own.top_of(model)["include_top"]:
        return None
    depth, layout = arguments["depth"], arguments["layout"]
    is_there = (
        depth in timm.DEPTHS
        and arguments["stem"] == "imagenet"
        and layout in timm.FORMAT.layouts(depth)
        and arguments["unit"] == "full_preactivation"
        and arguments["shortcut"] == "identity"
        and arguments["projection"] in (None, "convolution")
        and arguments["width_multiplier"] == 1
    )
    return f"resnetv2_{depth}" if is_there else None


def how_to_load(model: keras.Model) -> str:
    """How to load the safetensors of a network, for people: one line."""
    name = timm_name(model)
    if name is None:
        return _OURS
    channels, classes = model.input_shape[-1], model.output_shape[-1]
    return (
        f"timm.create_model({name!r}, num_classes={classes}, in_chans={channels})"
        ".load_state_dict(safetensors.torch.load_file(PATH)); here: keras_preact.convert(PATH)"
    )


def safetensors_bytes(model: keras.Model) -> bytes:
    """Returns a network as the bytes of a safetensors file.

    The names are timm's where timm has the network, which is then loaded strictly; else they
    are the paths of our variables. The metadata record the architecture, the preprocessing and
    how to load the file.

    Raises:
        ModuleNotFoundError: if safetensors is not installed.
        ValueError: if the model is not one of ours.
    """
    try:
        from safetensors.numpy import save
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"To write safetensors: {INSTALL}", name="safetensors") from error
    arrays = {path: np.asarray(v, np.float32) for path, v in trainable_paths(model).items()}
    if own.STEM not in arrays:
        raise ValueError(
            "safetensors are written of the networks of this package. Received: "
            f"{shown(model.name)}, which has no {own.STEM}"
        )
    if (name := timm_name(model)) is not None:
        arrays = _renamed(model, arrays)
    return save(
        {key: np.ascontiguousarray(array) for key, array in arrays.items()}, _record(model, name)
    )


def write_safetensors(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes `safetensors_bytes` to a file, whole: it is the old or the new one."""
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(safetensors_bytes(model))
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _renamed(model, arrays):
    arguments = model.arguments
    architecture = architectures.resolve(arguments["depth"], layout=arguments["layout"])
    table = scheme.names(timm.FORMAT, architecture, arguments, (), has_top=True)
    return {name: variable.to_theirs(arrays[path]) for path, (name, variable) in table.items()}


def _record(model, name) -> dict[str, str]:
    preprocessing = preprocessing_of(model)
    parts: dict[str, Any] = {
        "arguments": getattr(model, "arguments", None),
        "layers": own.facts(model.get_config()["layers"]),
        "top": own.top_of(model),
        "preprocessing": preprocessing and preprocessing.get_config(),
    }
    return {
        "format": own.NAME,
        "names": f"timm {name}" if name else own.NAME,
        "load": how_to_load(model),
        **{key: json.dumps(value) for key, value in parts.items()},
    }
