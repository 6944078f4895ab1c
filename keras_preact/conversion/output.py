"""Writes a network to a file, whole."""

import os
import pathlib

import keras

from keras_preact.models.foreign import safetensors_bytes
from keras_preact.support.files import lies_there, write_whole
from keras_preact.support.paths import usable

ENDINGS = (".keras", ".safetensors", ".weights.h5")


def check(path: str | os.PathLike, overwrite: bool) -> None:
    """Refuses a path that a network cannot be written to.

    Raises:
        ValueError: if its ending is not in `ENDINGS`, its folder is missing, or something lies
            there and overwrite is False.
    """
    if not os.fspath(path).endswith(ENDINGS):
        raise ValueError(
            f"output must end in {', '.join(ENDINGS)}. Received: output={os.fspath(path)!r}"
        )
    output = usable(path, "output")
    if not output.parent.is_dir():
        raise ValueError(f"output must lie in a folder that exists. Received: output={output}")
    if output.is_dir():
        raise ValueError(f"output must be a file. Received: output={output}, a folder")
    if lies_there(output) and not overwrite:
        raise ValueError(f"{output} is there already. Give --overwrite to replace it.")


def write(model: keras.Model, path: str | os.PathLike) -> None:
    """Writes a network as its ending in `ENDINGS` says: the old file is there, or the new one."""
    output = pathlib.Path(usable(path, "output"))
    if output.name.endswith(".safetensors"):
        write_whole(output, safetensors_bytes(model))
        return
    # Keras wants its own endings.
    is_weights = output.name.endswith(".weights.h5")
    temporary = output.with_name(f".{output.name}.tmp{'.weights.h5' if is_weights else '.keras'}")
    try:
        (model.save_weights if is_weights else model.save)(temporary)
        temporary.replace(output)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
