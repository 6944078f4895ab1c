"""What servers load, made from a trained run."""

from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.run import run
from keras_preact.exporting.saved_model import ParityError

__all__ = ["ExportConfig", "ParityError", "run"]
