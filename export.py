"""Exports a model for TensorFlow Serving and TFLite; all flags: python export.py --help."""

import os
import signal

if __name__ == "__main__":
    # TensorFlow's import takes seconds. A signal in it ends the program, without a traceback.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    # Hides those of its start-up notices that can be hidden.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from keras_preact import exporting
from keras_preact.support import program


def main(given: dict) -> None:
    exporting.run(exporting.ExportConfig(**given))


if __name__ == "__main__":
    program.start(main, exporting.ExportConfig, __doc__, "nothing has been exported")
