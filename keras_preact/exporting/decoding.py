"""Image files to images, inside a graph that serves strangers."""

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_preact.data.augmentation import fit

# Decoded, 150 MB.
MAX_IMAGE_PIXELS = 50_000_000
PARALLEL_IMAGES = 4

JPEG = b"\xff\xd8\xff"
# With the beginning of the chunk that width and height are in: decoders would skip an unknown
# one before it, whose bytes must not pass for a size.
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_HEADER_BYTES = 24


def make_decoder(
    image_shape: Sequence[int], margin: float, max_image_pixels: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function from image files to images, brought to size as evaluation does.

    JPEG and PNG alone: a GIF of a few kilobytes may hold thousands of frames, which
    TensorFlow decodes all.

    Args:
        image_shape: (height, width, channels) of the images.
        margin: as in `data.DatasetInfo`.
        max_image_pixels: the most that an image may have, as it is and once it has been
            enlarged until it covers image_shape. Its header is asked, before it is decoded
            to three bytes a pixel; enlarged, it takes twelve more, and `PARALLEL_IMAGES`
            of a batch are in memory at a time.

    Returns:
        decode(image_bytes), from strings (batch,), each a file of any size, to uint8
        (batch, height, width, channels). It raises `tf.errors.InvalidArgumentError` for
        the whole batch where a file is of another kind, is damaged, or has too many pixels.
    """
    # As `fit` rounds.
    covered = [round(side * margin) for side in image_shape[:2]]

    def decode(number, encoded):
        with tf.control_dependencies(_checks(number, encoded, covered, max_image_pixels)):
            return fit(tf.identity(encoded), image_shape, margin)

    def decode_all(image_bytes):
        return tf.map_fn(
            lambda item: decode(*item),
            (tf.range(tf.size(image_bytes)), image_bytes),
            fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
            parallel_iterations=PARALLEL_IMAGES,
        )

    return decode_all


def is_decodable(file: bytes) -> bool:
    """Whether a file begins as those do that `make_decoder`'s function takes."""
    return file.startswith((JPEG, _PNG))


def refusal(error: tf.errors.OpError) -> str:
    """What a graph says of a file that it refuses, in one line, and not where it says so."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    of_tensorflow = re.compile(r"\s*\[\[|\d+ (root|successful|derived) ")
    *_, line = [line for line in lines if not of_tensorflow.match(line)] or lines or [""]
    line = re.sub(r"\{\{.*?\}\}|\[Op:.*|\(\d+\) [A-Z_]+:", "", line).strip()
    of_ours = re.fullmatch(r"assertion failed: \[(.*)\]", line)
    return of_ours[1] if of_ours else line


def _checks(number, encoded, covered, max_image_pixels):
    """Operations that fail where a file is not to be decoded."""
    # Files may end early.
    header = tf.strings.join([tf.strings.substr(encoded, 0, _HEADER_BYTES), "\0" * _HEADER_BYTES])
    is_jpeg, is_png = (
        tf.equal(tf.strings.substr(header, 0, len(magic)), magic) for magic in (JPEG, _PNG)
    )
    which = "image {} of the batch, a file of {} bytes"
    received = [number, tf.strings.length(encoded)]
    rule = f"image_bytes must be JPEG or PNG files. Received another kind: {which}"
    is_known = tf.debugging.Assert(is_jpeg | is_png, [tf.strings.format(rule, received)])
    with tf.control_dependencies([is_known]):
        sides = tf.cond(
            is_jpeg, lambda: tf.io.extract_jpeg_shape(encoded)[:2], lambda: _png_sides(header)
        )
    height, width = covered
    rule = (
        f"An image must have 1 to {max_image_pixels:,} pixels, and no more once it covers "
        f"{height} x {width}. Received: {which}, height and width {{}}"
    )
    message = tf.strings.format(rule, [*received, sides])
    is_small = tf.debugging.Assert(_most_pixels(sides, covered) <= max_image_pixels, [message])
    return [is_known, is_small]


def _png_sides(header):
    sides = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)
    return sides[::-1]


def _most_pixels(sides, covered):
    """Of an image, or of what it is enlarged to, which for a thin one is far more."""
    sides = tf.cast(sides, tf.float64)
    scale = tf.reduce_max(tf.constant(covered, tf.float64) / sides)
    return tf.reduce_prod(sides) * tf.maximum(scale, 1) ** 2
