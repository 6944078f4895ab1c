"""Contact sheets: images of a class, and below each the image that training makes of it."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.data.order import DRAWS
from keras_preact.data.sources import spread

# Images of a class where there are few classes, and where there are many; classes with a sheet.
MOST_IMAGES, FEWEST_IMAGES, MOST_CLASSES = 8, 3, 60
# Images on all sheets together, but for the fewest of each class.
ALL_IMAGES = 160
# Height and width of a thumbnail and the space between two, in pixels.
SIDE_PIXELS, GAP_PIXELS = 96, 4
_WHITE = 255


class Sheet(NamedTuple):
    """The sheet of a class.

    Args:
        label: of the class.
        images: on it.
        png: the picture; originals above, augmented ones below.
    """

    label: int
    images: int
    png: bytes


def of_classes(dataset: Dataset, labels: np.ndarray, augmentation: str, seed: int) -> list[Sheet]:
    """Makes the sheets of classes.

    The images are the first of each class that the first epoch of training takes with this seed,
    and below them stand the very images that it computes of them. Of more than `MOST_CLASSES`
    classes, some have a sheet: evenly spaced from the class of the fewest training images to
    that of the most.

    Args:
        dataset: its training images are shown.
        labels: of these, as `all_labels` returns them.
        augmentation: as `Dataset.check_augmentation` returns it.
        seed: of data order and augmentation.
    """
    several, classes = labels.ndim == 2, dataset.info.classes
    counts = labels.sum(axis=0) if several else np.bincount(labels, minlength=classes)
    ranks = np.argsort(counts, kind="stable")
    ranks = ranks[counts[ranks] > 0]
    chosen = np.sort(ranks[spread(len(ranks), MOST_CLASSES)])
    most = int(np.clip(ALL_IMAGES // max(len(chosen), 1), FEWEST_IMAGES, MOST_IMAGES))
    # One step holds the epoch.
    indices, draws = dataset.train_order(len(dataset.train_source), seed).batch(0)
    ordered = labels[indices]
    positions = [
        np.flatnonzero(ordered[:, label] > 0 if several else ordered == label)[:most]
        for label in chosen
    ]
    needed, inverse = np.unique(np.concatenate(positions or [[]]).astype(int), return_inverse=True)
    if not len(needed):
        return []
    before, after = _pairs(dataset, indices[needed], draws[needed], augmentation)
    places = np.split(inverse, np.cumsum([len(some) for some in positions])[:-1])
    return [
        Sheet(int(label), len(some), _picture(before[some], after[some]))
        for label, some in zip(chosen, places, strict=True)
        if len(some)
    ]


def _pairs(dataset, indices, draws, augmentation):
    """The images at indices, and augmented with their draws: uint8 (images, side, side, 3)."""
    source = dataset.train_source

    def shown(images):
        return [_thumbnail(image) for image in images.as_numpy_iterator()]

    originals = source.eval_images(tf.data.Dataset.from_tensor_slices(indices))
    batch = tf.data.Dataset.from_tensors((indices, draws.reshape(-1, DRAWS)))
    augmented = source.train_batches(batch, augmentation, dataset.info.mean).unbatch()
    return (
        np.stack(shown(originals.map(lambda image, label: image))),
        np.stack(shown(augmented.map(lambda image, *rest: image))),
    )


def _thumbnail(image):
    """A picture of SIDE_PIXELS; small images are enlarged without smoothing."""
    height, width = image.shape[:2]
    scale = SIDE_PIXELS / max(height, width)
    size = [max(1, math.floor(side * scale)) for side in (height, width)]
    enlarges = scale >= 1
    method = "nearest" if enlarges else "area"
    small = tf.image.resize(image, size, method=method).numpy()
    canvas = np.full((SIDE_PIXELS, SIDE_PIXELS, 3), _WHITE, np.uint8)
    top, left = ((SIDE_PIXELS - side) // 2 for side in size)
    canvas[top : top + size[0], left : left + size[1]] = np.rint(small)
    return canvas


def _picture(before, after):
    """Two rows of thumbnails as a PNG."""
    step = SIDE_PIXELS + GAP_PIXELS
    canvas = np.full((2 * step - GAP_PIXELS, len(before) * step - GAP_PIXELS, 3), _WHITE, np.uint8)
    for row, images in enumerate((before, after)):
        for column, image in enumerate(images):
            top, left = row * step, column * step
            canvas[top : top + SIDE_PIXELS, left : left + SIDE_PIXELS] = image
    return tf.io.encode_png(canvas).numpy()
