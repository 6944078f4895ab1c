"""Augmentation and evaluation crops: stateless, a function of the image and its draws.

`draws` are the random integers that `DataOrder` gives each image in each epoch, so an
image is changed by (seed, epoch, index) alone. Images stay uint8 throughout.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data.limits import covered_sides
from keras_preact.data.orientation import orient, orientation, stored_window, swapped

AUGMENTATIONS = ("none", "pad_crop", "pad_crop_flip", "random_resized_crop")

# Evaluation crops 224 pixels of 256, or in proportion.
EVAL_RESIZE_RATIO = 256 / 224


def augmented(
    images: tf.Tensor, draws: tf.Tensor, name: str, mean: Sequence[float] = (0,)
) -> tf.Tensor:
    """Augments a batch of images of one size.

    Args:
        images: uint8 (batch, height, width, channels).
        draws: int32 (batch, 3 or more), at least 0.
        name: "none"; "pad_crop", with black padding, as around written characters; or
            "pad_crop_flip", with padding of the mean.
        mean: of each channel, in 0 to 255.

    Returns:
        uint8 images of the same shape.
    """
    if name == "none":
        return images
    flip = name == "pad_crop_flip"
    return pad_crop(images, draws, flip=flip, fill=np.round(mean) if flip else (0,))


def pad_crop(
    images: tf.Tensor, draws: tf.Tensor, *, flip: bool, fill: Sequence[int] = (0,)
) -> tf.Tensor:
    """Pads by an eighth of the size, crops at random, and mirrors about every second image.

    For 32x32 images the padding is the paper's 4 pixels.
    Source: "Deep Residual Learning for Image Recognition", section 4.2.

    Args:
        images: uint8 (batch, height, width, channels).
        draws: int32 (batch, 3 or more), at least 0.
        flip: whether to mirror.
        fill: the colour of the padding, 0 to 255, for each channel or for all. The
            papers pad images whose mean has been subtracted, with zeros: that is the mean.

    Returns:
        uint8 images of the same shape.
    """
    height, width = images.shape[1:3]
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    fill = tf.constant(fill, tf.uint8)
    # uint8 wraps around, and back.
    padded = tf.pad(images - fill, [[0, 0], [pad_y, pad_y], [pad_x, pad_x], [0, 0]]) + fill
    top = draws[:, 0] % (2 * pad_y + 1)
    left = draws[:, 1] % (2 * pad_x + 1)
    rows = top[:, None] + tf.range(height)
    columns = tf.tile(tf.range(width)[None], [tf.shape(images)[0], 1])
    if flip:
        mirrored = (draws[:, 2] % 2 == 1)[:, None]
        columns = tf.where(mirrored, width - 1 - columns, columns)
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, left[:, None] + columns, axis=2, batch_dims=1)


def random_resized_crop(encoded: tf.Tensor, draws: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a random part of 8 to 100 % of an image, resizes and mirrors it.

    The aspect ratio lies between 3/4 and 4/3. Source: "Identity Mappings in Deep
    Residual Networks", table 5 (scale and aspect ratio augmentation).

    Args:
        encoded: as for `fit`.
        draws: int32 (3 or more,), at least 0.
        size: height and width of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    is_jpeg, turn = tf.io.is_jpeg(encoded), orientation(encoded)
    sides = tf.cond(
        is_jpeg,
        lambda: tf.io.extract_jpeg_shape(encoded)[:2],
        lambda: tf.shape(_decode(encoded))[:2],
    )
    sides = swapped(sides, turn)
    begin, crop, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([sides, [3]], axis=0),
        tf.zeros([0, 0, 4]),
        seed=draws[:2],
        # The default, a tenth of the image, would raise the lower end of area_range.
        min_object_covered=0.0,
        area_range=(0.08, 1.0),
        aspect_ratio_range=(3 / 4, 4 / 3),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    window = stored_window(tf.concat([begin[:2], crop[:2]], axis=0), sides, turn)
    top, left, height, width = tf.unstack(window)
    image = tf.cond(
        is_jpeg,
        lambda: tf.io.decode_and_crop_jpeg(encoded, window, channels=3),
        lambda: _decode(encoded)[top : top + height, left : left + width],
    )
    # Turned last, when it is small.
    image = orient(resize(image, size, size), turn)
    image = tf.cond(draws[2] % 2 == 1, lambda: image[:, ::-1], lambda: image)
    return tf.ensure_shape(image, [size, size, 3])


def center_crop(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes an image, resizes its short side to size * 256 / 224 and crops the centre.

    Args:
        encoded: as for `fit`.
        size: height and width of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    return fit(encoded, (size, size, 3), EVAL_RESIZE_RATIO)


def center_crop_covers(size: int) -> tuple[int, int]:
    """Returns height and width in pixels that `center_crop` resizes an image to cover."""
    return covered_sides((size, size), EVAL_RESIZE_RATIO)


def fit(encoded: tf.Tensor, image_shape: Sequence[int], resize_ratio: float) -> tf.Tensor:
    """Decodes an image, resizes it until it just covers a shape times a ratio, crops the centre.

    Args:
        encoded: one image file, JPEG, PNG, GIF or BMP, a scalar string. A JPEG is brought
            upright, as its Exif metadata say; see `orientation`.
        image_shape: (height, width, channels) of the result, 1 or 3 channels.
        resize_ratio: 1 crops as little as possible.

    Returns:
        uint8 (height, width, channels).
    """
    height, width, channels = image_shape
    image, turn = _decode(encoded, channels), orientation(encoded)
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    covered = swapped(tf.constant(covered_sides(image_shape, resize_ratio), tf.float64), turn)
    sides = tf.cast(tf.round(tf.reduce_max(covered / sides) * sides), tf.int32)
    # Turned last, when it is small.
    image = orient(resize(image, sides[0], sides[1]), turn)
    top, left = tf.unstack((tf.shape(image)[:2] - [height, width]) // 2)
    return tf.ensure_shape(image[top : top + height, left : left + width], image_shape)


def resize(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Bilinear and antialiased: uint8 (any, any, channels) to uint8 (height, width, channels)."""
    image = tf.image.resize(image, [height, width], method="bilinear", antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def _decode(encoded, channels=3):
    # Always in colour: TensorFlow cannot decode every kind of file to grey.
    image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
    if channels == 3:
        return image
    luma = tf.tensordot(tf.cast(image, tf.float32), [0.299, 0.587, 0.114], axes=1)
    return tf.cast(tf.round(luma), tf.uint8)[..., None]
