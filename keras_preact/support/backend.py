"""Refuses other backends of Keras than TensorFlow, before Keras is imported."""

import json
import os
import pathlib
import sys
import traceback

from keras_preact.support import startup


def check() -> None:
    """Imports Keras; refuses another backend than TensorFlow and a broken configuration.

    Raises:
        ImportError: if Keras cannot be used; a program ends with the message alone.
    """
    cause, message = None, _wrong_backend()
    if message is None:
        try:
            import keras  # noqa: F401
        except Exception as error:
            if not _of_configuration(error):
                raise
            cause, message = error, _wrong_configuration(error)
    if message is not None:
        refused = ImportError(message)
        refused.__cause__ = cause
        startup.refuse(refused)


def _wrong_backend():
    """Describes the backend that Keras has, or would have; None for TensorFlow."""
    if "keras" in sys.modules:
        backend = sys.modules["keras"].backend.backend()
    else:
        # Importing Keras fails in other words for each backend that is not installed.
        backend = os.environ.get("KERAS_BACKEND") or _in_file()
    if backend == "tensorflow":
        return None
    given = os.environ.get("KERAS_BACKEND") == backend
    received = f"KERAS_BACKEND={backend}" if given else f'"backend": {backend!r}, in {_file()}'
    return (
        "keras_preact needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow before Keras is "
        f"imported. Received: {received}"
    )


def _file():
    return pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"


def _in_file():
    try:
        return json.loads(_file().read_text()).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError, RecursionError):
        return "tensorflow"  # Keras itself says what is wrong with its file


def _of_configuration(error):
    """Whether Keras raised an error while it read its file or environment variables."""
    paths = [pathlib.Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    own = [path.parts[-4:] for path in paths if "keras" in path.parts]
    return bool(own) and own[-1] == ("keras", "src", "backend", "config.py")


def _wrong_configuration(error):
    return (
        f"Keras cannot be configured: mend or delete {_file()}, and look at the environment "
        f"variables that begin with KERAS_. Received: {' '.join(str(error).split())}"
    )
