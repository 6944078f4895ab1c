"""What servers load, made from a trained run."""

from keras_preact.exporting.compare import ParityError
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.run import run

__all__ = ["ExportConfig", "ParityError", "run"]
