"""Image files of all kinds, honest and not, and their decoding by Pillow."""

import io
import struct
import zlib

import numpy as np
from image_encoding import encode, smooth_image
from PIL import Image, ImageOps

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def flat(colour, height, width, file_format="PNG", mode=None, **options):
    """A file of one colour."""
    return encode(np.full((height, width, 3), colour, np.uint8), file_format, mode, **options)


def animated_gif(count=3):
    frames = [Image.fromarray(smooth_image(9, 8, seed)) for seed in range(count)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def chunk(kind, data):
    """A part of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def grey_png(height, width, *, bits=8, value=0, before=b""):
    """A PNG of one grey value, written by hand; `before` are chunks before its header."""
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = bytes([value]) * (width * bits // 8)
    rows = zlib.compress((b"\0" + pixels) * height)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return PNG_MAGIC + before + chunks


def claiming(file, height, width):
    """The file with another height and width in its header, and nothing else changed."""
    if file.startswith(PNG_MAGIC):
        header = struct.pack(">II", width, height) + file[24:29]
        return PNG_MAGIC + chunk(b"IHDR", header) + file[33:]
    # Start of frame, baseline or progressive: length, precision, then height and width.
    start = max(file.find(b"\xff\xc0\x00\x11\x08"), file.find(b"\xff\xc2\x00\x11\x08"))
    assert start > 0
    return file[: start + 5] + struct.pack(">HH", height, width) + file[start + 9 :]


def pillow_fit(file, image_shape, resize_ratio):
    """Decodes upright, resizes until it just covers the shape times the ratio, crops the centre."""
    height, width, channels = image_shape
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert("RGB")
    picture = picture if channels == 3 else picture.convert("L")
    scale = max(
        round(height * resize_ratio) / picture.height, round(width * resize_ratio) / picture.width
    )
    sides = round(picture.width * scale), round(picture.height * scale)
    left, top = (sides[0] - width) // 2, (sides[1] - height) // 2
    resized = np.asarray(picture.resize(sides, Image.BILINEAR))
    return resized[top : top + height, left : left + width].reshape(image_shape)
