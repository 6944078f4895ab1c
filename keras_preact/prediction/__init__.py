"""Predictions: the likeliest classes of image files, by a model of any kind of ours."""

from keras_preact.support import extras

extras.check()

from keras_preact.prediction.answers import Prediction, predict, predictions
from keras_preact.prediction.config import PredictConfig
from keras_preact.prediction.loading import load
from keras_preact.prediction.run import UnreadableFilesError, run

__all__ = [
    "PredictConfig",
    "Prediction",
    "UnreadableFilesError",
    "load",
    "predict",
    "predictions",
    "run",
]
