"""Decodes image files inside a graph whose input may come from anybody."""

import re
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_preact.data.augmentation import fit
from keras_preact.data.limits import JPEG, PNG, admitted, covered_sides

KINDS = ("JPEG", "PNG")
PARALLEL_IMAGES = 4


def make_decoder(
    image_shape: Sequence[int], resize_ratio: float, max_image_pixels: int
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from image files to images, resized as in evaluation.

    It takes JPEG and PNG files only: TensorFlow decodes all frames of a GIF, and a few
    kilobytes may hold thousands.

    Args:
        image_shape: (height, width, channels) of the images.
        resize_ratio: as in `data.DatasetInfo`.
        max_image_pixels: largest number of pixels, in the file and after resizing to cover
            image_shape. It is read from the header: decoding takes three bytes a pixel,
            resizing twelve more, for `PARALLEL_IMAGES` images at a time. The scans of a JPEG
            are limited by `data.limits.MAX_SCANS`.

    Returns:
        decode(image_bytes), from strings (batch,), each a file of any size, to uint8
        (batch, height, width, channels). It raises `tf.errors.InvalidArgumentError` for
        the whole batch if a file is of another kind, is damaged, or has too many pixels
        or scans.
    """
    covered = covered_sides(image_shape, resize_ratio)

    def decode(number, encoded):
        encoded = admitted(
            encoded,
            covered,
            kinds=KINDS,
            max_image_pixels=max_image_pixels,
            name="image_bytes",
            which=tf.strings.join(["image ", tf.strings.as_string(number), " of the batch, "]),
        )
        return fit(encoded, image_shape, resize_ratio)

    def decode_all(image_bytes):
        return tf.map_fn(
            lambda item: decode(*item),
            (tf.range(tf.size(image_bytes)), image_bytes),
            fn_output_signature=tf.TensorSpec(image_shape, tf.uint8),
            parallel_iterations=PARALLEL_IMAGES,
        )

    return decode_all


def is_decodable(file: bytes) -> bool:
    """Whether a file begins as a JPEG or PNG does."""
    return file.startswith((JPEG, PNG))


def refusal(error: tf.errors.OpError) -> str:
    """The reason why a graph refuses a file: one line, without the names of operations."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    of_tensorflow = re.compile(r"\s*\[\[|\d+ (root|successful|derived) ")
    *_, line = [line for line in lines if not of_tensorflow.match(line)] or lines or [""]
    line = re.sub(r"\{\{.*?\}\}|\[Op:.*|\(\d+\) [A-Z_]+:", "", line).strip()
    of_ours = re.fullmatch(r"assertion failed: \[(.*)\]", line)
    return of_ours[1] if of_ours else line
