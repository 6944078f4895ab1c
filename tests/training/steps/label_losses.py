"""Losses in NumPy and float64, for tests."""

import numpy as np

CLASSES = 7


def logits_and_labels(scale=3.0, count=40):
    generator = np.random.default_rng(0)
    logits = (scale * generator.normal(size=(count, CLASSES))).astype(np.float32)
    return logits, generator.integers(0, CLASSES, count).astype(np.int32)


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def smoothed(labels, smoothing):
    """Label vectors of equation (3) and section 7 of the paper, with u(k) = 1 / K."""
    return (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES


def log_sigmoid(values):
    return -np.logaddexp(0, -values.astype(np.float64))


def binary(logits, targets, positive=1.0):
    """The mean over classes of PyTorch's BCEWithLogitsLoss, in float64."""
    losses = -(positive * targets * log_sigmoid(logits) + (1 - targets) * log_sigmoid(-logits))
    return losses.mean(axis=1)
