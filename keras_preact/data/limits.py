"""Limits of an image file, checked before decoding, which might take all memory or time.

One rule for folders and for servers, made of TensorFlow's operations alone.
"""

import struct
from collections.abc import Sequence

import tensorflow as tf

from keras_preact.data.orientation import orientation, swapped

# Decoded, 150 MB.
MAX_IMAGE_PIXELS = 50_000_000

# Decoding goes through all pixels of a JPEG in every scan. Progressive files of libjpeg have 10
# scans, 18 with four colours; those of an embedded thumbnail count too. With 50 million pixels,
# 10 scans take 1 s to decode, the worst 32 take 7 s.
MAX_SCANS = 32

JPEG = b"\xff\xd8\xff"
# Includes the name of the chunk that holds width and height: decoders skip unknown chunks
# before it, whose bytes must not pass for a size.
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# First bytes of the other kinds; place, type and byte order of width and height.
_OTHERS = {
    "PNG": (PNG, 16, tf.int32, False),
    "GIF": (b"GIF8", 6, tf.uint16, True),
    "BMP": (b"BM", 18, tf.int32, True),
}
KINDS = ("JPEG", *_OTHERS)

# FF DA, and the upper byte of the length that follows, at most 14 for decoders. Elsewhere in
# a JPEG, FF is always followed by 00 or D0 to D7.
_START_OF_SCAN = b"\xff\xda\0"
_HEADER_BYTES = 32
# Segments that stand before the frame: tables, restart interval, applications', comments.
_BEFORE_FRAME = {0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE}


def covered_sides(image_shape: Sequence[int], resize_ratio: float) -> tuple[int, int]:
    """Height and width that an image is resized to cover before its centre is cropped.

    Args:
        image_shape: (height, width, channels) of the crop.
        resize_ratio: as in `data.DatasetInfo`.
    """
    height, width = (round(side * resize_ratio) for side in image_shape[:2])
    return height, width


def plain_sides(file: bytes) -> tuple[int, int] | None:
    """Returns height and width of a JPEG or PNG whose header is plain; None of any other file.

    A quick look in Python: `problem` has nothing against a plain file of few pixels, and such a
    JPEG stands upright, as it has no Exif metadata.
    """
    if file.startswith(PNG):
        width, height = struct.unpack_from(">ii", file.ljust(_HEADER_BYTES, b"\0"), 16)
        return height, width
    if not file.startswith(JPEG) or b"Exif\0\0" in file or file.count(_START_OF_SCAN) > MAX_SCANS:
        return None
    place = 2
    # Segments: FF, a marker, then the length of what follows; C0 to C2 begin the frame.
    while place + 9 <= len(file) and file[place] == 0xFF and 0xC0 <= file[place + 1] < 0xFF:
        length, _, height, width = struct.unpack_from(">HBHH", file, place + 2)
        if file[place + 1] in (0xC0, 0xC1, 0xC2):
            return height, width
        if file[place + 1] not in _BEFORE_FRAME:
            return None
        place += 2 + length
    return None


def admitted(encoded: tf.Tensor, covered: tuple[int, int]) -> tf.Tensor:
    """Returns the file, a scalar string, if it may be decoded. Takes arguments of `problem`.

    Raises:
        tf.errors.InvalidArgumentError: if it must not be decoded.
    """
    why = problem(encoded, covered)
    with tf.control_dependencies([tf.debugging.Assert(tf.equal(why, ""), [why])]):
        return tf.identity(encoded)


def problem(
    encoded: tf.Tensor,
    covered: tuple[int, int],
    *,
    kinds: Sequence[str] = KINDS,
    max_image_pixels: int = MAX_IMAGE_PIXELS,
    name: str = "Images",
) -> tf.Tensor:
    """Returns why a file must not be decoded, a sentence; empty if it may. Reads its header alone.

    It must be of one of the kinds and have at most as many pixels as allowed, both as it is
    and once enlarged to cover `covered`; a JPEG must have at most `MAX_SCANS` scans. The
    frames of a GIF are not in its header; see `gif.problem`.

    Args:
        encoded: the file, a scalar string.
        covered: height and width in pixels, from `covered_sides`.
        kinds: those of `KINDS` that are taken.
        max_image_pixels: the most that are allowed.
        name: of the files, begins the sentence about their kind.

    Returns:
        A scalar string.

    Raises:
        tf.errors.InvalidArgumentError: if it begins as a JPEG and has no size.
    """
    is_known, sides, scans = tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: (True, _jpeg_sides(encoded, covered), _count_scans(encoded)),
        lambda: (*_sides_by_kind(encoded, kinds), 1),
    )
    is_small = tf.reduce_all(sides > 0) & (_most_pixels(sides, covered) <= max_image_pixels)

    def words():
        listed = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
        kind = f"{name} must be {listed} files. Received another kind: "
        size = (
            f"An image must have 1 to {max_image_pixels:,} pixels, and no more once it covers "
            f"{covered[0]} x {covered[1]}. Received: "
        )
        many = f"A JPEG must have at most {MAX_SCANS} scans. Received one with more: "
        rule = tf.where(is_known, tf.where(is_small, many, size), kind)
        length = tf.strings.as_string(tf.strings.length(encoded))
        found = tf.strings.format(", height and width {}", [sides])
        found = tf.where(is_known, found, "")
        return tf.strings.join([rule, "a file of ", length, " bytes", found])

    return tf.cond(is_known & is_small & (scans <= MAX_SCANS), lambda: tf.constant(""), words)


def sides(encoded: tf.Tensor) -> tf.Tensor:
    """Returns height and width from the header of a file, int32 (2,); zeros if it is no image."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: _sides_by_kind(encoded, KINDS)[1],
    )


def _jpeg_sides(encoded, covered):
    sides = tf.io.extract_jpeg_shape(encoded)[:2]
    # A square is the same either way up.
    return sides if covered[0] == covered[1] else swapped(sides, orientation(encoded))


def _count_scans(encoded):
    """Scans of a JPEG, counted up to MAX_SCANS + 1."""
    split = tf.raw_ops.StringSplitV2(input=[encoded], sep=_START_OF_SCAN, maxsplit=MAX_SCANS + 1)
    return tf.size(split.values) - 1


def _sides_by_kind(encoded, kinds):
    """Whether a file is of one of the kinds, JPEG aside; height and width from its header."""
    # Files may end early.
    header = tf.strings.join([tf.strings.substr(encoded, 0, _HEADER_BYTES), "\0" * _HEADER_BYTES])
    is_known, width_and_height = tf.constant(False), tf.constant([0, 0])
    for kind, (beginning, place, dtype, little_endian) in _OTHERS.items():
        if kind not in kinds:
            continue
        is_kind = tf.equal(tf.strings.substr(header, 0, len(beginning)), beginning)
        fields = tf.strings.substr(header, place, 2 * dtype.size)
        found = tf.cast(tf.io.decode_raw(fields, dtype, little_endian=little_endian), tf.int32)
        # The height of a BMP whose uppermost row comes first is negative.
        found = tf.abs(found) if kind == "BMP" else found
        is_known, width_and_height = is_known | is_kind, tf.where(is_kind, found, width_and_height)
    return is_known, width_and_height[::-1]


def _most_pixels(sides, covered):
    """Pixels of an image or of its enlargement, which are far more if it is thin."""
    sides = tf.cast(sides, tf.float64)
    scale = tf.reduce_max(tf.constant(covered, tf.float64) / sides)
    return tf.reduce_prod(sides) * tf.maximum(scale, 1) ** 2
