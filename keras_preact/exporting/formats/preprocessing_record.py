"""The preprocessing of a model as a JSON file, which lies beside the weights in an export."""

import dataclasses
import json
import zipfile

from etils import epath

from keras_preact.layers import Preprocessing
from keras_preact.support import records
from keras_preact.support.paths import is_regular

FILE = "preprocessing.json"
# In the folder of a SavedModel, where servers ignore what they do not know.
IN_SAVED_MODEL = f"assets.extra/{FILE}"
_WHAT = "the preprocessing of a model"


def to_json(preprocessing: Preprocessing) -> bytes:
    """Returns the file's contents; `read` reads them back."""
    return f"{json.dumps(dataclasses.asdict(preprocessing), indent=2)}\n".encode()


def write(saved_model: epath.PathLike, preprocessing: Preprocessing) -> None:
    """Writes the record into the folder of a SavedModel's version."""
    path = epath.Path(saved_model) / IN_SAVED_MODEL
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(to_json(preprocessing))


def read(path: epath.PathLike) -> Preprocessing:
    """Reads the record in a file of its own.

    Raises:
        ValueError: if the file is not there or holds something else.
    """
    try:
        is_regular(path)
        return _parse(records.contents(path), path)
    except OSError as error:
        raise ValueError(f"{path} is not {_WHAT}: {error.strerror or error}") from error


def of_saved_model(folder: epath.PathLike) -> Preprocessing | None:
    """Returns the record in the folder of a SavedModel's version; None without one.

    Raises:
        ValueError: if the file holds something else.
    """
    path = epath.Path(folder) / IN_SAVED_MODEL
    return read(path) if path.exists() else None


def of_tflite(path: epath.PathLike) -> Preprocessing | None:
    """Returns the record in the zip archive at the end of a TFLite file; None without one.

    Raises:
        ValueError: if the entry holds something else.
    """
    try:
        with epath.Path(path).open("rb") as file, zipfile.ZipFile(file) as archive:
            if archive.getinfo(FILE).file_size > records.MOST_BYTES:
                raise ValueError(f"{path} must not hold a {FILE} of so many bytes")
            data = archive.read(FILE)
    except (KeyError, zipfile.BadZipFile):
        return None
    return _parse(data, f"{FILE} in {path}")


def _parse(data, where):
    with records.named(where, _WHAT):
        value = records.parse_json(records.decoded(data))
        return records.typed(value, Preprocessing, exact=True)
