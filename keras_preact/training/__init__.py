"""One run: configuration, loop, checkpoints and figures."""

from keras_preact.training.cluster import WorkerLostError
from keras_preact.training.config import TrainConfig
from keras_preact.training.errors import DivergenceError, SaveError
from keras_preact.training.interruption import Interrupted
from keras_preact.training.run import run

__all__ = ["DivergenceError", "Interrupted", "SaveError", "TrainConfig", "WorkerLostError", "run"]
