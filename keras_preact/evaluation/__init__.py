"""Evaluation that answers questions: numbers, how certain they are, mistakes, one page."""

from keras_preact.support import extras

extras.check()

from keras_preact.evaluation.config import EvaluateConfig
from keras_preact.evaluation.report import Evaluation
from keras_preact.evaluation.run import UnreadableImagesError, evaluate, run

__all__ = ["EvaluateConfig", "Evaluation", "UnreadableImagesError", "evaluate", "run"]
