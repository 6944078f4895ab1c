"""Pictures for TensorBoard, as PNG files in memory."""

from collections.abc import Sequence

import numpy as np

from keras_preact.support.plotting import HEAT, as_png, figure
from keras_preact.support.text import printable

# More could not be told apart.
MOST_IMAGES = 16
MOST_NAMES = 30
MOST_LETTERS = 30


@as_png(dpi=100)
def batch(images: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> bytes:
    """The first images of a batch, each under the name of its class.

    Args:
        images: uint8 (batch, height, width, channels), of 1 or 3 channels.
        labels: int (batch,).
        names: of the classes, by label.
    """
    count = min(len(images), MOST_IMAGES)
    picture = figure(figsize=(8, 2.2 * -(-count // 4)))
    for place, axes in enumerate(np.ravel(picture.subplots(-(-count // 4), 4))):
        axes.axis("off")
        if place < count:
            # Grey in 0 to 255, not stretched to the image's own range.
            axes.imshow(images[place], cmap="gray", vmin=0, vmax=255)
            axes.set_title(printable(names[labels[place]])[:MOST_LETTERS], fontsize="small")
    return picture


@as_png(dpi=100)
def confusion(counts: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """A confusion matrix: rows are the true classes, shares of a row are colours.

    Args:
        counts: int (classes, classes), of true class and prediction.
        names: of the classes, by label; shown where they are few.
        title: above the picture.
    """
    picture = figure(figsize=(7, 6))
    axes = picture.subplots()
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap=HEAT, vmin=0, vmax=100)
    picture.colorbar(image, label="share of the true class (%)")
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    if len(names) <= MOST_NAMES:
        # Longer ones would leave no room for the matrix.
        short = [printable(name)[: MOST_LETTERS // 2] for name in names]
        axes.set_xticks(range(len(names)), short, rotation=90)
        axes.set_yticks(range(len(names)), short)
    if len(names) <= 12:
        for row, column in np.argwhere(counts):
            color = "black" if shares[row, column] > 60 else "white"
            text = f"{counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    return picture
