"""A data set in one line, from what is known already."""

import numpy as np
import tensorflow as tf

from keras_preact.data import limits
from keras_preact.data.dataset import Dataset
from keras_preact.data.sources import Encoded, InMemory, spread

SPLITS = {"train": "training", "eval": "validation", "test": "test"}
# Training images whose headers are read for their sizes: few, as a run only begins.
MEASURED_IMAGES = 64


def one_line(dataset: Dataset) -> str:
    """Describes a data set: its images by split, classes, sizes, and copies across splits.

    Reads the headers of some images and no labels: the range of images per class is left out
    where labels are not known, as in large sets of tensorflow-datasets.

    Returns:
        One line, as in "Data: 600 training, 120 validation, 80 test images of 2 classes (240 to
        360 each for training), 150x150 to 500x375 pixels; 3 images in more than one split".
    """
    counts = {name: len(source) for name, source in sources_of(dataset).items()}
    images = ", ".join(f"{count:,} {SPLITS[split]}" for split, count in counts.items())
    classes = f"{dataset.info.classes:,} {_classes(dataset)}"
    line = f"Data: {images} images of {classes}, {_sizes(dataset)}"
    if across := len(across_splits(dataset)):
        line += f"; {across:,} {'image' if across == 1 else 'images'} in more than one split"
    return line


def sources_of(dataset: Dataset) -> dict[str, InMemory | Encoded]:
    """The images of each split that there is, by "train", "eval" and "test"."""
    every = (dataset.train_source, dataset.eval_source, dataset.test_source)
    return {split: source for split, source in zip(SPLITS, every, strict=True) if source}


def places(dataset: Dataset) -> dict[str, tuple[str, int]]:
    """The split and the index of each image, by the name that its source gives it."""
    return {
        source.where(index): (split, index)
        for split, source in sources_of(dataset).items()
        for index in range(len(source))
    }


def across_splits(dataset: Dataset) -> list[tuple[str, ...]]:
    """The groups of `Findings.duplicates` whose copies are in more than one split."""
    groups = dataset.findings.duplicates
    found = places(dataset) if groups else {}
    return [group for group in groups if len({found[path][0] for path in group}) > 1]


def _classes(dataset):
    words = "labels" if dataset.info.multi_label else "classes"
    labels = dataset.train_source.labels
    if labels is None:
        return words
    counts = dataset.class_counts()
    low, high = counts.min(), counts.max()
    return f"{words} ({low:,}{'' if low == high else f' to {high:,}'} each for training)"


def _sizes(dataset):
    source = dataset.train_source
    if isinstance(source, InMemory):
        height, width = source.images.shape[1:3]
        return f"{width}x{height} pixels"
    found = []
    for index in spread(len(source), MEASURED_IMAGES):
        try:
            file = source.file(int(index))
            sides = limits.plain_sides(file) or limits.sides(tf.constant(file)).numpy()
        except (tf.errors.OpError, ValueError):
            # Whoever trains on it says why.
            continue
        if min(sides) > 0:
            found.append(tuple(map(int, sides)))
    if not found:
        return f"brought to {source.size}x{source.size} pixels"
    areas = np.prod(found, axis=1)
    (low_height, low_width), (height, width) = found[areas.argmin()], found[areas.argmax()]
    sizes = f"{low_width}x{low_height}"
    if (low_height, low_width) != (height, width):
        sizes += f" to {width}x{height}"
    return f"{sizes} pixels"
