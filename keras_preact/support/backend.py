"""Keras on TensorFlow: the only backend of these networks, looked at before all else."""

import json
import os
import pathlib
import sys
import traceback

# Beside the package in a clone; `python -m` calls the others.
_PROGRAMS = ("train.py", "export.py")
_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def refusal() -> ImportError | None:
    """Imports Keras, and returns what to raise where its backend or configuration is wrong.

    A program of ours ends here instead, with that message alone; --debug lets it go on.
    """
    cause, message = None, _wrong_backend()
    if message is None:
        try:
            import keras  # noqa: F401
        except Exception as error:
            if not _of_configuration(error):
                raise
            cause, message = error, _wrong_configuration(error)
    if message is None:
        return None
    if _runs_our_program() and "--debug" not in sys.argv:
        print(f"Error: {message}", file=sys.stderr)
        sys.exit(2)
    refused = ImportError(message)
    refused.__cause__ = cause
    return refused


def _wrong_backend():
    """The error in the backend that Keras has, or would have; None where it is right."""
    if "keras" in sys.modules:
        backend = sys.modules["keras"].backend.backend()
    else:
        # Keras would fail to import some that are not installed, each in words of its own.
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
    """Whether Keras raised an error over its file or its environment variables."""
    paths = [pathlib.Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    own = [path.parts[-4:] for path in paths if "keras" in path.parts]
    return bool(own) and own[-1] == ("keras", "src", "backend", "config.py")


def _wrong_configuration(error):
    return (
        f"Keras cannot be configured: mend or delete {_file()}, and look at the environment "
        f"variables that begin with KERAS_. Received: {' '.join(str(error).split())}"
    )


def _runs_our_program():
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":
        # Python imports the package to find the module in it; until then only this names it.
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module.partition(".")[0] == _PACKAGE.name
    path = pathlib.Path(program)
    return path.name in _PROGRAMS and path.resolve().parent == _PACKAGE.parent
