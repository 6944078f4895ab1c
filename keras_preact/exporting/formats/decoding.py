"""Image files to images, inside a graph that serves strangers."""

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
    """A function from image files to images, brought to size as evaluation does.

    JPEG and PNG alone: of a GIF of a few kilobytes, which may hold thousands of frames,
    TensorFlow decodes all.

    Args:
        image_shape: (height, width, channels) of the images.
        resize_ratio: as in `data.DatasetInfo`.
        max_image_pixels: the most that an image may have, as it is and once it has been
            enlarged until it covers image_shape. Its header is asked, before it is decoded
            to three bytes a pixel; enlarged, it takes twelve more, and `PARALLEL_IMAGES`
            of a batch are in memory at a time. The scans of a JPEG are bounded by
            `data.limits.MAX_SCANS`.

    Returns:
        decode(image_bytes), from strings (batch,), each a file of any size, to uint8
        (batch, height, width, channels). It raises `tf.errors.InvalidArgumentError` for
        the whole batch where a file is of another kind, is damaged, or has too many pixels
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
    """Whether a file begins as those do that `make_decoder`'s function takes."""
    return file.startswith((JPEG, PNG))


def refusal(error: tf.errors.OpError) -> str:
    """What a graph says of a file that it refuses, in one line, and not where it says so."""
    lines = [line for line in error.message.splitlines() if line.strip()]
    of_tensorflow = re.compile(r"\s*\[\[|\d+ (root|successful|derived) ")
    *_, line = [line for line in lines if not of_tensorflow.match(line)] or lines or [""]
    line = re.sub(r"\{\{.*?\}\}|\[Op:.*|\(\d+\) [A-Z_]+:", "", line).strip()
    of_ours = re.fullmatch(r"assertion failed: \[(.*)\]", line)
    return of_ours[1] if of_ours else line
