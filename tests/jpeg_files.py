"""JPEG files with metadata and scans of their own."""

import struct

from image_encoding import encode
from PIL import Image

ORIENTATION = 0x0112
UPRIGHT, ORIENTATIONS = 1, range(1, 9)
BYTE_ORDERS = {"big": ">", "little": "<"}
_TAGS = {"big": b"MM\0*", "little": b"II*\0"}


def segment(marker, data):
    """A part of a JPEG: APP1 is 0xE1."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def exif(entries, order="big", offset=8, count=None):
    """A segment with metadata written by hand: entries are (tag, type, count, value's bytes)."""
    end = BYTE_ORDERS[order]
    count = len(entries) if count is None else count
    rows = b"".join(struct.pack(end + "HHI", *entry[:3]) + entry[3] for entry in entries)
    directory = struct.pack(end + "H", count) + rows + bytes(4)
    tiff = _TAGS[order] + struct.pack(end + "I", offset) + b"\0" * (offset - 8) + directory
    return segment(0xE1, b"Exif\0\0" + tiff)


def turned_by(orientation, order="big"):
    """The entry of a directory that says how an image is turned."""
    return ORIENTATION, 3, 1, struct.pack(BYTE_ORDERS[order] + "HH", orientation, 0)


def with_segments(jpeg, *segments):
    """The file with these segments before all others."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def turned_jpeg(image, orientation, order="big", **options):
    """A JPEG as a camera writes it that was held in some way, made by Pillow."""
    tags = Image.Exif()
    tags.endian = BYTE_ORDERS[order]
    # Make, resolution, and what an entry before and one behind may be.
    tags[0x010F], tags[ORIENTATION], tags[0x011A] = "A camera", orientation, 72.0
    return encode(image, "JPEG", exif=tags.tobytes(), **options)


def with_scans(jpeg, times):
    """The progressive JPEG with its last scan that many times more."""
    assert jpeg.endswith(b"\xff\xd9")
    return jpeg[:-2] + jpeg[jpeg.rfind(b"\xff\xda\0") : -2] * times + b"\xff\xd9"
