"""Runs: train, resume and evaluate a network."""

from keras_preact.support import extras

extras.check()

from keras_preact.support.errors import SaveError
from keras_preact.support.signals import Interrupted
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import WorkerLostError
from keras_preact.training.networks import load_run
from keras_preact.training.run import run
from keras_preact.training.run_in_progress import Run
from keras_preact.training.steps.step_metrics import DivergenceError
from keras_preact.training.trainer import Action

__all__ = [
    "Action",
    "DivergenceError",
    "Interrupted",
    "Run",
    "SaveError",
    "TrainConfig",
    "WorkerLostError",
    "load_run",
    "run",
]
