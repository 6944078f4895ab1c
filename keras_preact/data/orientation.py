"""The orientation of photographs, from their Exif metadata.

Cameras store what the sensor sees and note how they were held. JPEG files are brought upright as
`PIL.ImageOps.exif_transpose` does, by their Exif metadata alone and not by XMP. PNG, GIF and BMP,
which come from no camera, are taken as they are stored.

Sources: Exif (CIPA DC-008), the tag Orientation; TIFF 6.0, sections 2 and 8.
"""

import tensorflow as tf

UPRIGHT = 1

# For each orientation, from 1 on: the stored axes that are seen as rows and as columns, and
# whether rows and columns are then reversed.
_AXES = [(0, 1)] * 4 + [(1, 0)] * 4
_REVERSED = [(False, False), (False, True), (True, True), (True, False)] * 2

# Metadata come before the first scan. Exif's are in a segment APP1: FF E1, its length in two
# bytes, and these.
_SCAN = b"\xff\xda\0"
_APP1, _EXIF = b"\xff\xe1", b"Exif\0\0"

# How the structure of Exif begins, as a number: "MM", 0, 42, or "II", 42, 0.
_BIG_ENDIAN, _LITTLE_ENDIAN = 0x4D4D002A, 0x002A4949
# A directory is the number of its entries in 2 bytes, then 12 bytes for each. Cameras write a
# dozen.
_MAX_ENTRIES = 256
_DIRECTORY_BYTES = 2 + 12 * _MAX_ENTRIES
# The wanted entry begins with tag 274, type 3 (a 16-bit number), their count 1 in 32 bits, and
# the upper byte of the value; upper bytes come first.
_ENTRY = [1, 0x12, 0, 3, 0, 0, 0, 1, 0]
# Places of the same bytes where lower bytes come first.
_SWAPPED = [1, 0, 3, 2, 7, 6, 5, 4, 9, 8]


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """The orientation of an image file, a scalar int32 in 1 to 8.

    Args:
        encoded: the file, a scalar string. 1, upright, if it is no JPEG or holds no valid
            orientation.
    """
    # Few operations: they run for every image, and most images have no orientation.
    metadata = tf.raw_ops.StringSplitV2(input=[encoded], sep=_SCAN, maxsplit=1).values[0]
    parts = tf.raw_ops.StringSplitV2(input=[metadata], sep=_EXIF, maxsplit=1).values
    has_exif = tf.equal(tf.size(parts), 2) & tf.io.is_jpeg(encoded)
    return tf.cond(has_exif, lambda: _of_exif(parts[0], parts[1]), lambda: tf.constant(UPRIGHT))


def orient(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Brings a stored image (height, width, channels) upright."""

    def turn():
        axes = tf.concat([tf.gather(_AXES, orientation - 1), [2]], axis=0)
        reversed_axes = tf.where(tf.gather(_REVERSED, orientation - 1))[:, 0]
        return tf.reverse(tf.transpose(image, axes), reversed_axes)

    return tf.cond(tf.equal(orientation, UPRIGHT), lambda: image, turn)


def swapped(pair: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Swaps (vertical, horizontal) where rows and columns change places."""
    return tf.gather(pair, tf.gather(_AXES, orientation - 1))


def stored_window(window: tf.Tensor, sides: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Returns the place of a window of an upright image in the image as stored.

    Args:
        window: top, left, height and width, int32 (4,).
        sides: height and width of the upright image, int32 (2,).
        orientation: as `orientation` returns.

    Returns:
        The same four of the stored image.
    """
    begin, size = window[:2], window[2:]
    is_reversed = tf.gather(_REVERSED, orientation - 1)
    begin = tf.where(is_reversed, sides - begin - size, begin)
    return tf.concat([swapped(begin, orientation), swapped(size, orientation)], axis=0)


def _of_exif(before, tiff):
    """The orientation in the first directory of a TIFF structure; UPRIGHT if it is not sound."""
    is_app1 = tf.equal(tf.strings.substr(tf.strings.join(["\0" * 4, before]), -4, 2), _APP1)
    # Zeros stand for what is missing at the end.
    beginning = tf.strings.substr(tiff, 0, 8)
    big, little = (
        tf.io.decode_raw(beginning, tf.int32, little_endian=is_little, fixed_length=8)
        for is_little in (False, True)
    )
    is_big, is_little = tf.equal(big[0], _BIG_ENDIAN), tf.equal(little[0], _LITTLE_ENDIAN)
    offset, end = tf.where(is_big, big[1], little[1]), tf.strings.length(tiff)
    offset = tf.where((offset >= 0) & (offset < end), offset, end)
    directory = tf.strings.substr(tiff, offset, _DIRECTORY_BYTES)
    directory = tf.io.decode_raw(directory, tf.uint8, fixed_length=_DIRECTORY_BYTES)
    count = tf.where(is_big, directory[:2], directory[1::-1])
    entries = tf.reshape(directory[2:], [_MAX_ENTRIES, 12])
    entries = tf.gather(entries, tf.where(is_big, tf.range(10), _SWAPPED), axis=1)
    is_wanted = tf.reduce_all(tf.equal(entries[:, :9], _ENTRY), axis=1)
    is_wanted &= tf.range(_MAX_ENTRIES) < tf.tensordot(tf.cast(count, tf.int32), [256, 1], 1)
    value = tf.reduce_max(tf.where(is_wanted, tf.cast(entries[:, 9], tf.int32), 0))
    is_sound = is_app1 & (is_big | is_little) & (value >= 1) & (value <= 8)
    return tf.where(is_sound, value, UPRIGHT)
