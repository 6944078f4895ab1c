"""Takes validation images from the training images of a data set that brings a test split.

The authors of ResNets chose their schedule on 45,000 and 5,000 of CIFAR-10's training images
("Deep Residual Learning for Image Recognition", 2015, section 4.2). Which images leave follows from
their number and the data set alone: runs of all seeds learn from the same images and are measured
on the same.
"""

import dataclasses

import numpy as np

from keras_preact.data.sources import Loaded


def hold_out(loaded: Loaded, count: int, name: str) -> Loaded:
    """Moves training images to validation, and the images for evaluation to the test split.

    Args:
        loaded: a data set of two splits.
        count: images to move.
        name: of the data set, for errors.

    Raises:
        ValueError: if the set has a validation split beside its test split, if count is below the
            number of classes, or if a class would have no training image left.
    """
    train, classes = loaded.train, len(loaded.class_names)
    if loaded.test is not None:
        raise ValueError(
            f"validation_images must be left out for {name}, which brings a validation split of "
            f"{len(loaded.evaluation):,} images beside its test split. "
            f"Received: validation_images={count}"
        )
    if not classes <= count < len(train):
        raise ValueError(
            f"validation_images must be at least the {classes:,} classes of {name} and less than "
            f"its {len(train):,} training images. Received: validation_images={count}"
        )
    labels = train.labels
    chosen = drawn(np.zeros(len(train), np.int64) if labels is None else labels, count)
    if labels is not None:
        kept = np.bincount(labels[~chosen], minlength=classes)
        emptied = np.flatnonzero((kept == 0) & (np.bincount(labels, minlength=classes) > 0))
        if len(emptied):
            raise ValueError(
                f"validation_images must leave a training image of each class of {name}; "
                f"{loaded.class_names[emptied[0]]} would have none. "
                f"Received: validation_images={count}"
            )
    return dataclasses.replace(
        loaded,
        train=train.select(~chosen, f"without-{count}"),
        evaluation=train.select(chosen),
        test=loaded.evaluation,
    )


def drawn(labels: np.ndarray, count: int) -> np.ndarray:
    """Draws images at random, of each class in proportion to its number of images.

    The draw is the same on every machine and with every version of NumPy.

    Args:
        labels: int (images,), at least 0.
        count: images to draw.

    Returns:
        Boolean (images,), true for `count` of them. A class has its exact share, but for less
        than one image.
    """
    # Not Generator.permutation: NumPy may change its algorithm.
    keys = np.random.Philox(0).random_raw(len(labels))
    by_class = np.lexsort((keys, labels))
    sizes = np.bincount(labels)
    ends = np.cumsum(sizes)
    shares = np.diff(ends * count // len(labels), prepend=0)
    # The rank of each image among those of its class.
    ranks = np.arange(len(labels)) - np.repeat(ends - sizes, sizes)
    mask = np.zeros(len(labels), bool)
    mask[by_class[ranks < np.repeat(shares, sizes)]] = True
    return mask
