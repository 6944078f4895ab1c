"""Reads the variables of a file as arrays: safetensors, npz, HDF5, .keras and PyTorch's."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from keras_preact.models.foreign import hdf5
from keras_preact.models.foreign.scheme import RefusedError
from keras_preact.support.extras import INSTALL
from keras_preact.support.text import shown

# float32 holds all their values.
_DTYPES = ("float32", "float16", "bfloat16")
# PyTorch's counts of batches and Keras' states of random numbers; no output depends on them.
_COUNTERS = ("num_batches_tracked", "seed_generator_state")
_HDF5, _PICKLE, _ZIP = b"\x89HDF\r\n\x1a\n", b"\x80", b"PK"


@dataclasses.dataclass(frozen=True)
class File:
    """What a file holds.

    Args:
        path: of it.
        kind: "safetensors", "npz", "hdf5", "weights.h5", "keras" or "torch".
        tensors: float32 arrays by name.
        ignored: names of variables that no network needs.
        metadata: of safetensors, texts by name.
        config: of a Keras model, from JSON; None where the file has none.
    """

    path: str
    kind: str
    tensors: dict[str, np.ndarray]
    ignored: tuple[str, ...] = ()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] | None = None


def read(path: str | os.PathLike) -> File:
    """Reads a file; its contents decide how, and not its name.

    Nothing in the file is executed: pickles are read by PyTorch with `weights_only=True`, npz
    without objects, and `.keras` without its layers.

    Raises:
        ValueError: if there is no such file, it is damaged or of another kind, or a variable
            has a dtype that float32 does not hold, or a value that is not finite.
        ModuleNotFoundError: if a package that reads it is missing.
    """
    path = os.fspath(path)
    kind = sniff(path)
    config, metadata = None, {}
    with reading(path):
        if kind == "safetensors":
            tensors, metadata = _safetensors(path)
        elif kind == "npz":
            tensors = _npz(path)
        elif kind == "keras":
            tensors, config = _keras(path)
        elif kind == "torch":
            tensors = _torch(path)
        else:
            tensors, config = hdf5.read(path)
            kind = "weights.h5" if hdf5.is_new(path) else "hdf5"
    tensors = _unprefixed(tensors)
    ignored = tuple(name for name in tensors if name.endswith(_COUNTERS))
    return File(
        path,
        kind,
        {
            name: _float32(name, array, path)
            for name, array in tensors.items()
            if name not in ignored
        },
        ignored,
        metadata,
        config,
    )


def sniff(path: str | os.PathLike) -> str:
    """Returns the kind of a file: "safetensors", "npz", "hdf5", "keras" or "torch".

    Raises:
        ValueError: if there is no such file, or it is of none of these kinds.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        reason = "a folder" if path.is_dir() else "nothing is there"
        raise ValueError(f"A file of weights must be a file. Received: {path}; {reason}")
    with path.open("rb") as file:
        start = file.read(9)
    if start.startswith(_HDF5):
        return "hdf5"
    if start.startswith(_ZIP):
        return _zip_kind(path)
    if start[8:] == b"{":
        return "safetensors"
    if start.startswith(_PICKLE):
        return "torch"
    # Truncated files keep their names.
    hint = f" It ends in {path.suffix} but is damaged." if path.suffix else ""
    raise ValueError(
        "A file of weights must be safetensors, npz, HDF5, .keras, or a .pth of PyTorch. "
        f"Received: {path}, which begins with {shown(start.decode('latin1'))}.{hint}"
    )


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """A context in which an error of any reader says that the file cannot be read."""
    try:
        yield
    except (ModuleNotFoundError, RefusedError):
        raise
    except MemoryError as error:
        raise _unreadable(path, "it claims more values than there is memory for") from error
    except Exception as error:
        # Readers raise errors of any kind at damaged files, and long ones.
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise _unreadable(path, reason) from error


def _unreadable(path, reason):
    return ValueError(f"{path} cannot be read; it may be damaged or cut off: {reason}")


def _zip_kind(path):
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise _unreadable(path, error) from error
    if "config.json" in members:
        return "keras"
    if any(name.endswith("data.pkl") for name in members):
        return "torch"
    if members and all(name.endswith(".npy") for name in members):
        return "npz"
    raise ValueError(
        "An archive of weights must be npz, .keras, or a .pth of PyTorch. "
        f"Received: {path}, which holds {shown(', '.join(members[:5]))}"
    )


def _safetensors(path):
    try:
        import safetensors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"To read {path}: {INSTALL}", name="safetensors") from error
    # NumPy has no bfloat16 until ml_dtypes, which comes with Keras, is imported.
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata() or {})
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def _npz(path):
    with zipfile.ZipFile(path) as archive:
        _check_count(sum(info.file_size for info in archive.infolist()) // 4, path)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _keras(path):
    config = keras_config(path)
    with zipfile.ZipFile(path) as archive:
        _check_count(archive.getinfo("model.weights.h5").file_size // 4, path)
        with archive.open("model.weights.h5") as file:
            return hdf5.read_new(file, config), config


def keras_config(path: str) -> dict[str, Any]:
    """Returns the configuration of the model in a `.keras` file, as JSON has it."""
    with zipfile.ZipFile(path) as archive:
        _check_count(archive.getinfo("config.json").file_size, path)
        return json.loads(archive.read("config.json"))


def _torch(path):
    try:
        import torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{path} is a file of PyTorch, which is not installed here. Where it is, these two "
            "lines convert the file:\n"
            f"{_two_lines(path, True)}",
            name="torch",
        ) from error
    try:
        # Opened here, as PyTorch would go by the file's name.
        with open(path, "rb") as file:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "weights_only" not in str(error).lower():
            raise
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        calls = f", which calls {asked[1].rstrip('.')}" if asked else ""
        raise RefusedError(
            f"{path} holds more than weights{calls}: reading it would run code from it. If you "
            "trust whoever made it, these two lines convert the file:\n"
            f"{_two_lines(path, False)}"
        ) from None
    return {name: _to_numpy(tensor, torch) for name, tensor in _state(found, torch, path).items()}


def _two_lines(path, weights_only):
    load = f"torch.load({path!r}, map_location='cpu', weights_only={weights_only})"
    return (
        "  import torch, safetensors.torch\n"
        f"  safetensors.torch.save_file((f := {load}).get('state_dict', f), 'net.safetensors')"
    )


def _state(found, torch, path):
    """The tensors in what a .pth file holds: themselves, or below a key such as state_dict."""
    for key in ("state_dict", "model", "model_state_dict", "net"):
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = isinstance(found, Mapping) and {
        str(name): value for name, value in found.items() if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise RefusedError(
            "A .pth file must hold the state_dict of a net, alone or below the key state_dict. "
            f"Received: {path}, which holds {shown(type(found).__name__)}"
        )
    return tensors


def _to_numpy(tensor, torch):
    if tensor.dtype == torch.bfloat16:
        return tensor.float().numpy()
    return tensor.detach().numpy()


def _unprefixed(tensors):
    """The same without the "module." that parallel training puts before every name."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return tensors


def _float32(name, array, path):
    _check_count(array.size, path)
    dtype = str(array.dtype)
    if array.dtype == np.dtype("V2"):  # bfloat16 without its name
        array, dtype = array.view(ml_dtypes.bfloat16), "bfloat16"
    if dtype not in _DTYPES:
        raise ValueError(
            f"A variable must be of the dtype {', '.join(_DTYPES)}. Received: {shown(name)} of "
            f"{dtype} in {path}"
        )
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        kind = "NaN" if np.isnan(array).any() else "infinite values"
        raise ValueError(
            f"A variable must be finite. Received: {shown(name)} with {kind} in {path}"
        )
    return array


def _check_count(count, path):
    if count > hdf5.MOST_VALUES:
        raise ValueError(
            f"A file of weights must have at most {hdf5.MOST_VALUES:,} values. Received: {path}, "
            f"which claims {count:,}"
        )
