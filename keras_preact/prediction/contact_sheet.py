"""A picture of some images with their answers."""

import math
import os
from collections.abc import Sequence

import numpy as np

from keras_preact.layers import Preprocessing
from keras_preact.prediction.answers import Prediction
from keras_preact.prediction.pipeline import batches, center_crop, contents_of
from keras_preact.prediction.sources import Files
from keras_preact.support import plotting
from keras_preact.support.files import write_whole
from keras_preact.support.text import printable, shown

MOST_IMAGES = 48
COLUMNS = 8
_DPI = 100
# A thumbnail, the space around it, the lines of text above it, and all of it.
_SIDE, _MARGIN_PIXELS, _TEXT_PIXELS = 128, 11, 40
_WIDTH_PIXELS, _HEIGHT_PIXELS = 150, 180
_GREY = 230
_MOST_LETTERS = 22
_MARK = "keras_preact predict"
_HEADER_BYTES = 1024


def size_pixels(count: int) -> tuple[int, int]:
    """Returns width and height of the sheet of `count` images."""
    columns, rows = _layout(count)
    return columns * _WIDTH_PIXELS, rows * _HEIGHT_PIXELS


def check(path: str) -> None:
    """Raises ValueError if a sheet cannot be written, or something else would be overwritten."""
    if not os.path.isdir(os.path.dirname(path) or os.curdir):
        raise ValueError(f"contact_sheet must lie in a folder that exists. Received: {shown(path)}")
    if not os.path.lexists(path):
        return
    if os.path.isfile(path):
        with open(path, "rb") as file:
            if _MARK.encode() in file.read(_HEADER_BYTES):
                return
    raise ValueError(
        "contact_sheet must be new, or an earlier sheet, which is replaced. "
        f"Received: {shown(path)}, something else"
    )


def write(path: str, files: Files, chosen: Sequence[tuple[int, Prediction]]) -> None:
    """Writes the sheet: each image, its likeliest class and the name of its file.

    Args:
        path: of a PNG file.
        files: the list.
        chosen: indices in it and their predictions. The images are read again; those that
            cannot be read are marked.
    """
    few = Files([files.path(index) for index, _ in chosen])
    square = Preprocessing((_SIDE, _SIDE, 3), (0, 0, 0), (1, 1, 1))
    images: list[np.ndarray | None] = []
    every = range(len(few))
    for batch in batches(len(few), every, len(few), center_crop(square), contents_of(few)):
        images += [None if n in batch.problems else batch.images[n] for n in batch.own]
    write_whole(path, _draw(images, [prediction for _, prediction in chosen]))


@plotting.as_png(dpi=_DPI, metadata={"Software": _MARK})
def _draw(images, predictions):
    columns, _ = _layout(len(images))
    width, height = size_pixels(len(images))
    canvas = np.full((height, width, 3), 255, np.uint8)
    figure = plotting.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    figure.set_layout_engine("none")
    for place, (image, prediction) in enumerate(zip(images, predictions, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * _WIDTH_PIXELS + _MARGIN_PIXELS, row * _HEIGHT_PIXELS + _TEXT_PIXELS
        middle = (left + _SIDE / 2) / width

        def write(pixels, text, middle=middle, **options):
            figure.text(middle, 1 - pixels / height, text, ha="center", **options)

        if image is None:
            image = np.full((_SIDE, _SIDE, 3), _GREY, np.uint8)
            write(top + _SIDE / 2, "unreadable", va="center", fontsize=10)
        canvas[top : top + _SIDE, left : left + _SIDE] = image
        answer = "no answer"
        if prediction.classes:
            answer = f"{_short(prediction.classes[0])} {prediction.scores[0]:.0%}"
        name = _short(os.path.basename(prediction.file))
        write(top - 5, f"{answer}\n{name}", va="bottom", fontsize=7)
    figure.figimage(canvas, zorder=-1)
    return figure


def _layout(count):
    return min(count, COLUMNS), math.ceil(count / COLUMNS)


def _short(name):
    safe = printable(name)
    return safe if len(safe) <= _MOST_LETTERS else f"{safe[: _MOST_LETTERS - 3]}..."
