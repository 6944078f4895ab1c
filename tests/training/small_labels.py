"""The digits with several labels and with weights, for tests."""

import dataclasses

import numpy as np

from keras_preact.data import datasets
from keras_preact.data.sources import InMemory

NAMES = ("odd", "prime", "round", "square", "above 9")


def several_labels():
    """The digits as a data set of five classes, of which an image has none to four."""
    data = datasets.load("digits")
    info = dataclasses.replace(data.info, class_names=NAMES, multi_label=True)

    def labelled(source):
        digits = source.labels
        labels = np.stack(
            [
                digits % 2 == 1,
                np.isin(digits, (2, 3, 5, 7)),
                np.isin(digits, (0, 6, 8, 9)),
                np.isin(digits, (0, 1, 4, 9)),
                digits > 9,
            ],
            axis=1,
        )
        return InMemory(source.images, labels.astype(np.float32))

    return dataclasses.replace(
        data,
        info=info,
        train_source=labelled(data.train_source),
        eval_source=labelled(data.eval_source),
    )


def weighted(data, seed=0):
    """A data set whose training images have random weights of mean 1."""
    weights = np.random.default_rng(seed).uniform(0, 2, len(data.train_source))
    weights = (weights / weights.mean()).astype(np.float32)
    source = dataclasses.replace(data.train_source, weights=weights)
    return dataclasses.replace(data, train_source=source)
