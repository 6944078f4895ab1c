"""Evaluation that answers questions: numbers, their uncertainty, mistakes, one page."""

from keras_preact.support import extras

extras.check()
