"""A classifier without a network, whose answers tell the colour of an image, and images for it."""

import numpy as np
from image_encoding import encode

from keras_preact.layers import Preprocessing
from keras_preact.prediction.loading import Classifier

NAMES = ("red", "green", "blue")
SQUARE = Preprocessing((8, 8, 3), (0.0,) * 3, (1.0,) * 3, class_names=NAMES)


def colour_model(names=NAMES, preprocessing=SQUARE, computed=None):
    """The classifier; its names may be in another order. Appends each batch to `computed`."""
    places = [NAMES.index(name) if name in NAMES else None for name in names]

    def probabilities(images):
        if computed is not None:
            computed.append(np.asarray(images))
        colours = np.asarray(images, np.float64).mean((1, 2)) + 1
        columns = [np.ones(len(colours)) if n is None else colours[:, n] for n in places]
        chosen = np.stack(columns, axis=1)
        return (chosen / chosen.sum(axis=1, keepdims=True)).astype(np.float32)

    preprocessing = preprocessing.replace(class_names=tuple(names))
    return Classifier(probabilities, preprocessing, tuple(names), lambda: "digest")


def write_colours(folder, counts, seed=0, wrong=0):
    """Writes images of one colour each, in a folder for each class; returns the folder.

    Args:
        folder: to make.
        counts: images of each class.
        seed: of the colours.
        wrong: images of each class that have the colour of the next one.
    """
    generator = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            colour = generator.integers(0, 100, 3)
            own = (NAMES.index(name) + (number < wrong)) % 3
            colour[own] = 120 + 10 * number
            image = np.tile(colour.astype(np.uint8), (8, 8, 1))
            (folder / name / f"{number}.png").write_bytes(encode(image))
    return folder
