"""Images and files of them, for tests."""

import io

import numpy as np
from PIL import Image


def smooth_image(height, width, seed=0):
    """A colourful image without edges, which JPEG keeps almost unchanged: uint8, RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def encode(image, file_format="PNG", mode=None, **options):
    """The bytes of an image file; mode is Pillow's, "L" or "CMYK" for example."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    picture.convert(mode or picture.mode).save(buffer, file_format, **options)
    return buffer.getvalue()
