"""Exports a model for TensorFlow Serving and TFLite; all flags: python export.py --help."""

from keras_preact import exporting
from keras_preact.support import program


def main(given: dict) -> None:
    exporting.run(exporting.ExportConfig(**given))


if __name__ == "__main__":
    program.start(main, exporting.ExportConfig, __doc__, "nothing has been exported")
