"""Probabilities drawn at random, which are right more often than not."""

import numpy as np

from keras_preact.evaluation import multi_label
from keras_preact.evaluation.metrics import Answers


def random_answers(count=400, classes=7, seed=0, sharpness=2.0, ties=False):
    """Answers to `count` images; with ties, probabilities are multiples of 1/64."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    logits = generator.normal(size=(count, classes))
    logits[np.arange(count), labels] += sharpness
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if ties:
        probabilities = np.round(probabilities * 64) / 64
    names = tuple(f"class {number}" for number in range(classes))
    return Answers(probabilities.astype(np.float32), labels.astype(np.int32), names)


def random_multi_label_answers(count=300, classes=5, seed=0, ties=False):
    """The same of images of several classes; the last class has no images."""
    generator = np.random.default_rng(seed)
    labels = (generator.random((count, classes)) < 0.3).astype(np.float32)
    labels[:, -1] = 0
    probabilities = 1 / (1 + np.exp(-generator.normal(size=(count, classes)) - 2 * labels + 1))
    if ties:
        probabilities = np.round(probabilities * 16) / 16
    names = tuple("abcdefghij"[:classes])
    return multi_label.Answers(probabilities.astype(np.float32), labels, names)
