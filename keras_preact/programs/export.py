"""Exports a model for TensorFlow Serving and TFLite.

Ends with 0; with 3 if TFLite files were left out, as they differ too much from the model or cannot
be made; and otherwise with an error.
"""

from keras_preact import exporting
from keras_preact.support import program


def main(given: dict) -> None:
    """Exports as the fields of `ExportConfig` that the user set say."""
    exporting.run(exporting.ExportConfig(**given))


def start(command: str | None = None) -> None:
    """Runs the program and ends the process; see `program.start`."""
    program.start(main, exporting.ExportConfig, __doc__, "nothing has been exported", command)
