"""Files that servers and phones load, made from a trained model and compared with it."""

from keras_preact.support import extras

extras.check()

from keras_preact.exporting.checks.parity import ParityError
from keras_preact.exporting.config import ExportConfig
from keras_preact.exporting.left_out import PartlyExported
from keras_preact.exporting.run import run

__all__ = ["ExportConfig", "ParityError", "PartlyExported", "run"]
