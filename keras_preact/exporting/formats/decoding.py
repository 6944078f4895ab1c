"""Decodes image files inside a graph whose input may come from anybody."""

from collections.abc import Callable

import tensorflow as tf

from keras_preact.data.augmentation import fit
from keras_preact.data.limits import JPEG, PNG, covered_sides, problem
from keras_preact.layers import Preprocessing

KINDS = ("JPEG", "PNG")
PARALLEL_IMAGES = 4

_DAMAGED = "An image file must be whole and undamaged. Received: a file of "


def make_decoder(
    preprocessing: Preprocessing, max_image_pixels: int
) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """Returns a function from image files to images, resized as in evaluation.

    It takes JPEG and PNG files only: TensorFlow decodes all frames of a GIF, and a few
    kilobytes may hold thousands. A file that cannot be decoded is a value, not an error:
    servers compute the images of many clients in one batch, and an error would fail them all.

    Args:
        preprocessing: gives the shape of the images, and how they are resized.
        max_image_pixels: largest number of pixels, in the file and after resizing to cover
            image_shape. It is read from the header: decoding takes three bytes a pixel,
            resizing twelve more, for `PARALLEL_IMAGES` images at a time. The scans of a JPEG
            are limited by `data.limits.MAX_SCANS`.

    Returns:
        decode(image_bytes), from strings (batch,), each a file of any size, to the pair
        images, uint8 (batch, height, width, channels), and errors, strings (batch,). Where a
        file is of another kind, is damaged, or has too many pixels or scans, the image is black
        and the error a sentence; elsewhere the error is empty.
    """
    image_shape, resize_ratio = preprocessing.image_shape, preprocessing.resize_ratio
    covered = covered_sides(image_shape, resize_ratio)
    black = tf.zeros(image_shape, tf.uint8)

    def decode(file):
        why = problem(
            file, covered, kinds=KINDS, max_image_pixels=max_image_pixels, name="image_bytes"
        )
        return tf.cond(
            tf.equal(why, ""),
            lambda: fit(file, image_shape, resize_ratio, preprocessing.interpolation),
            lambda: black,
        ), why

    def decode_all(image_bytes):
        count = tf.size(image_bytes, tf.int64)
        # tf.data alone can drop what fails. One pipeline a batch: one an image is slower, and
        # `reduce` instead of `get_single_element` takes 0.15 s a call.
        decoded = tf.data.Dataset.range(count).map(
            lambda place: (place, *decode(image_bytes[place])), num_parallel_calls=PARALLEL_IMAGES
        )
        # At least one element, where all fail.
        spare = tf.data.Dataset.from_tensors((count, black, ""))
        taken = decoded.ignore_errors().concatenate(spare).batch(count + 1)
        places, images, errors = taken.get_single_element()
        lengths = tf.strings.as_string(tf.strings.length(image_bytes))
        damaged = tf.strings.join([_DAMAGED, lengths, " bytes"])
        errors = tf.tensor_scatter_nd_update(damaged, places[:-1, None], errors[:-1])
        shape = tf.concat([[count], tf.constant(image_shape, tf.int64)], axis=0)
        images = tf.scatter_nd(places[:-1, None], images[:-1], shape)
        return tf.ensure_shape(images, [None, *image_shape]), errors

    return decode_all


def is_decodable(file: bytes) -> bool:
    """Whether a file begins as a JPEG or PNG does."""
    return file.startswith((JPEG, PNG))
