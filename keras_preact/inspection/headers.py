"""Facts in the headers of image files: kind, size and channels, without decoding."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_preact.data import limits
from keras_preact.data.orientation import orientation
from keras_preact.data.sources import Encoded, spread
from keras_preact.support import console

# Files of a split whose headers are read, at most, evenly spaced.
MOST_FILES = 4096

_KINDS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP"}
_PNG_COLORS = {0: "grey", 2: "colour", 3: "palette", 4: "grey, alpha", 6: "colour, alpha"}
_JPEG_COLORS = {1: "grey", 3: "colour", 4: "CMYK"}
_BMP_COLORS = {24: "colour", 32: "colour, alpha"}
# Markers of a JPEG that begin a frame: C0 to CF but for tables.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# Orientations of Exif that exchange height and width.
_QUARTER_TURNS = 5


class Header(NamedTuple):
    """Facts about an image file.

    Args:
        kind: "JPEG", "PNG", "GIF" or "BMP".
        width: in pixels, of the image when upright.
        height: likewise.
        channels: in words, as in "grey".
        turned: whether Exif metadata turn or mirror it.
    """

    kind: str
    width: int
    height: int
    channels: str
    turned: bool = False


def of_source(source: Encoded) -> Iterator[Header]:
    """Yields the headers of at most `MOST_FILES` images, evenly spaced.

    Files that cannot be read any more are left out.
    """
    numbers = spread(len(source), MOST_FILES)
    files = tf.data.Dataset.from_tensor_slices(numbers).map(
        lambda index: source.read(index)[0], num_parallel_calls=tf.data.AUTOTUNE
    )
    with console.counting("Sizes of images", len(numbers)) as advance:
        for file in files.ignore_errors().as_numpy_iterator():
            advance(1)
            if (header := read(file)) is not None:
                yield header


def read(file: bytes) -> Header | None:
    """Reads the header of a file; returns None if it is no image."""
    kind = next((kind for mark, kind in _KINDS.items() if file.startswith(mark)), None)
    if kind is None:
        return None
    try:
        sides = limits.plain_sides(file)
        turn = 1
        if sides is None:
            encoded = tf.constant(file)
            sides = limits.sides(encoded).numpy()
            turn = int(orientation(encoded)) if kind == "JPEG" else 1
        channels = _CHANNELS[kind](file)
    except (tf.errors.OpError, struct.error, IndexError):
        return None
    height, width = map(int, np.flip(sides) if turn >= _QUARTER_TURNS else sides)
    return Header(kind, width, height, channels, turn > 1) if min(height, width) > 0 else None


def _of_jpeg(file):
    place = 2
    while file[place] == 0xFF:
        marker, length = file[place + 1], struct.unpack_from(">H", file, place + 2)[0]
        if marker in _FRAMES:
            return _JPEG_COLORS.get(file[place + 9], "other")
        place += 2 + length
    return "other"


def _of_png(file):
    return _PNG_COLORS.get(file[25], "other")


def _of_bmp(file):
    return _BMP_COLORS.get(struct.unpack_from("<H", file, 28)[0], "palette")


_CHANNELS = {"JPEG": _of_jpeg, "PNG": _of_png, "GIF": lambda file: "palette", "BMP": _of_bmp}
