"""The variables in HDF5 files of Keras, old and new, by the names of layers and variables."""

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py
import ml_dtypes
import numpy as np

from keras_preact.models.foreign.scheme import RefusedError

# Values of a net; a file that claims more is damaged or hostile.
MOST_VALUES = 2**30
# The new format counts the variables of a layer; these are their names, by Keras' class name.
_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "seed_generator": ("seed_generator_state",),
}
# It has none of the network's own; compiled models have an optimizer there too.
_LAYERS = ("layers", "_layer_checkpoint_dependencies")


def is_new(path: str) -> bool:
    """Whether a file is in the format of `.weights.h5`, not in Keras' legacy format."""
    with h5py.File(path) as file:
        return any(name in file for name in _LAYERS)


def read(path: str) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Reads a file in either format; returns arrays by LAYER/VARIABLE, and the model's config.

    Raises:
        RefusedError: if it is HDF5, but not of Keras.
    """
    if is_new(path):
        return read_new(path), None
    with h5py.File(path) as file:
        config = file.attrs.get("model_config")
        group = _group(file, "model_weights") if "model_weights" in file else file
        if "layer_names" not in group.attrs:
            raise RefusedError(
                f"An HDF5 file must be one that Keras wrote. Received: {path}, which names no "
                "layers"
            )
        found = {}
        for layer in map(_text, group.attrs["layer_names"]):
            part = _group(group, layer)
            for name in map(_text, part.attrs["weight_names"]):
                last = name.rpartition("/")[2].partition(":")[0]
                found[f"{layer}/{last}"] = _array(part, name)
        return found, json.loads(config) if config else None


def read_new(file: str | BinaryIO, config: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Reads the format of `.weights.h5`; returns arrays by PATH OF LAYERS/VARIABLE.

    Args:
        file: its path, or itself within an archive.
        config: of the model, which has the names that early versions of Keras 3 left out.
    """
    with h5py.File(file) as opened:
        [root] = [_group(opened, name) for name in _LAYERS if name in opened]
        return dict(_walk(root, "", _names(config)))


def _walk(group, path, names) -> Iterator[tuple[str, np.ndarray]]:
    for key in group:
        if key == "vars":
            continue
        part = _group(group, key)
        own = _group(part, "vars") if "vars" in part else None
        name = names.get(key, "" if own is None else key)
        if own is not None and "name" in own.attrs:
            name = _text(own.attrs["name"])
        place = f"{path}/{name}".strip("/")
        # A list of layers has no name and no variables of its own.
        for variable, array in () if own is None else _variables(own, key):
            yield f"{place}/{variable}", array
        yield from _walk(part, place, {})


def _variables(group, key):
    """The variables of one layer, which the file numbers, by their names in Keras."""
    arrays = {index: _array(group, index) for index in group}
    # The key is the class, or the attribute that holds the layer.
    names = _VARIABLES.get(re.sub(r"_\d+$", "", key))
    if names is None:
        ranks = [array.ndim for array in arrays.values()]
        is_bn = ranks == [1] * 4
        is_kernel = ranks in ([4], [4, 1], [2, 1])
        names = (
            _VARIABLES["batch_normalization" if is_bn else "conv2d"] if is_bn or is_kernel else ()
        )
    for index, array in arrays.items():
        number = int(index) if index.isdecimal() else len(names)
        yield names[number] if number < len(names) else index, array


def _names(config):
    """Names of layers by their keys in the file, from the order in a model's config."""
    counts, found = {}, {}
    layers = config.get("config", {}).get("layers", []) if config else []
    for layer in layers:
        # As Keras makes snake case of it.
        kind = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", layer["class_name"])
        kind = re.sub(r"([a-z])([A-Z])", r"\1_\2", kind).lower()
        number = counts.setdefault(kind, 0)
        counts[kind] += 1
        found[f"{kind}_{number}" if number else kind] = layer["config"]["name"]
    return found


def _group(parent, name):
    found = _inside(parent, name)
    if not isinstance(found, h5py.Group):
        raise ValueError(f"{name!r} is no group")
    return found


def _array(group, name):
    data = _inside(group, name)
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise RefusedError(f"A variable must lie in its own file. Received: {name!r} outside of it")
    if data.size > MOST_VALUES:
        raise ValueError(f"{name!r} claims {data.size:,} values")
    array = data[()]
    is_bfloat16 = data.attrs.get("dtype") == "bfloat16"
    return array.view(ml_dtypes.bfloat16) if is_bfloat16 and array.itemsize == 2 else array


def _inside(group, name):
    """The object at a path below a group; refuses links that lead to other files."""
    for part in name.split("/"):
        if isinstance(group.get(part, getlink=True), h5py.ExternalLink | h5py.SoftLink):
            raise RefusedError(f"A variable must lie in its own file. Received: {name!r}, a link")
        group = group[part]
    return group


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
