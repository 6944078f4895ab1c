"""Augmentation and evaluation crops: stateless, a function of the image and its draws.

`draws` are the random integers that `DataOrder` gives each image in each epoch, so an
image is changed by (seed, epoch, index) alone. Images stay uint8 throughout.
"""

import functools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_preact.data.augmentation_text import Augmentation, parse
from keras_preact.data.limits import covered_sides
from keras_preact.data.orientation import orient, orientation, stored_window, swapped
from keras_preact.data.random_operations import RANDOM_OPERATIONS, Context

# Fractions of its size that a JPEG can be decoded to, other than 1.
_RATIOS = np.array([2, 4, 8])

# Evaluation crops 224 pixels of 256, or in proportion.
EVAL_RESIZE_RATIO = 256 / 224
# Shorter sides of an image of which scale augmentation crops 224 pixels, or in proportion.
SCALES = (256 / 224, 480 / 224)


def augmented(
    images: tf.Tensor,
    draws: tf.Tensor,
    name: str,
    mean: Sequence[float] = (0,),
    dense: bool = True,
) -> tf.Tensor:
    """Augments a batch of images of one size.

    Args:
        images: whole numbers in 0 to 255 (batch, height, width, channels), uint8 or float16.
        draws: int32 (batch, DRAWS), at least 0.
        name: a base, and operations as in `augmentation_text`. The base is "none"; "pad_crop",
            with black padding, as around written characters; or "pad_crop_flip", with padding
            of the mean.
        mean: of each channel, in 0 to 255.
        dense: as in `random_operations.Context`; results do not depend on it.

    Returns:
        images of the same shape and dtype.
    """
    augmentation = parse(name)
    if augmentation.base in ("pad_crop", "pad_crop_flip"):
        flip = augmentation.base == "pad_crop_flip"
        images = pad_crop(images, draws, flip=flip, fill=np.round(mean) if flip else (0,))
    return changed(images, draws, augmentation, mean, dense)


def changed(
    images: tf.Tensor,
    draws: tf.Tensor,
    augmentation: Augmentation,
    mean: Sequence[float] = (0,),
    dense: bool = True,
) -> tf.Tensor:
    """Applies the operations of an augmentation, without its base; as `augmented`."""
    fill = np.zeros(1) if augmentation.base == "pad_crop" else np.round(mean)
    context = Context(tf.cast(tf.constant(fill, tf.uint8), images.dtype), dense)
    for name, number in augmentation.operations:
        images = RANDOM_OPERATIONS[name](images, draws, number, context)
    return images


def pad_crop(
    images: tf.Tensor, draws: tf.Tensor, *, flip: bool, fill: Sequence[int] = (0,)
) -> tf.Tensor:
    """Pads by an eighth of the size, crops at random, and mirrors about every second image.

    For 32x32 images the padding is the paper's 4 pixels.
    Source: "Deep Residual Learning for Image Recognition", section 4.2.

    Args:
        images: numbers in 0 to 255 (batch, height, width, channels), of any dtype.
        draws: int32 (batch, 3 or more), at least 0.
        flip: whether to mirror.
        fill: the colour of the padding, 0 to 255, for each channel or for all. The
            papers pad images whose mean has been subtracted, with zeros: that is the mean.

    Returns:
        images of the same shape and dtype.
    """
    height, width = images.shape[1:3]
    pad_y, pad_x = max(1, height // 8), max(1, width // 8)
    fill = tf.cast(tf.constant(fill, tf.uint8), images.dtype)
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

    A JPEG is decoded to the smallest of 1/8, 1/4, 1/2 and all of its size at which the part has
    at least as many pixels as the result in both directions; see also `resize_fast`.

    Args:
        encoded: as for `fit`.
        draws: int32 (3 or more,), at least 0.
        size: height and width of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    return _random_crop(encoded, draws, size, crop_window)


def random_scale_crop(encoded: tf.Tensor, draws: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a random square of an image, resizes and mirrors it.

    The square is `size` pixels of an image whose shorter side has 256 to 480 pixels, drawn
    evenly, for a size of 224; or in proportion. Source: "Deep Residual Learning for Image
    Recognition", section 3.4, and "Identity Mappings in Deep Residual Networks", table 5 (scale
    augmentation).

    Args:
        encoded, draws, size: as for `random_resized_crop`.

    Returns:
        uint8 (size, size, 3).
    """
    return _random_crop(encoded, draws, size, scale_window)


# By the names of bases for images of any size.
CROPS = {"random_resized_crop": random_resized_crop, "random_scale_crop": random_scale_crop}


def _random_crop(encoded, draws, size, choose):
    turn = orientation(encoded)

    def of_jpeg():
        window = choose(tf.io.extract_jpeg_shape(encoded)[:2], draws, turn)
        return _decode_window(encoded, window, size)

    def of_another():
        image = decode(encoded)
        top, left, height, width = tf.unstack(choose(tf.shape(image)[:2], draws, turn))
        return resize_fast(image[top : top + height, left : left + width], size)

    # Turned and mirrored last, when it is small.
    image = orient(tf.cond(tf.io.is_jpeg(encoded), of_jpeg, of_another), turn)
    image = tf.cond(draws[2] % 2 == 1, lambda: tf.reverse(image, [1]), lambda: image)
    return tf.ensure_shape(image, [size, size, 3])


def crop_window(sides: tf.Tensor, draws: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Draws the part of an image that `random_resized_crop` takes.

    Args:
        sides: height and width of the image as it is stored, int32 (2,).
        draws: as for `random_resized_crop`.
        turn: its orientation.

    Returns:
        Top, left, height and width in the stored image, int32 (4,).
    """
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
    return stored_window(tf.concat([begin[:2], crop[:2]], axis=0), sides, turn)


def scale_window(sides: tf.Tensor, draws: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Draws the part of an image that `random_scale_crop` takes; as `crop_window`."""
    sides = swapped(sides, turn)
    scale, *place = tf.unstack(tf.random.stateless_uniform([3], seed=draws[:2]))
    least, most = SCALES
    shorter = tf.cast(tf.reduce_min(sides), tf.float32)
    side = tf.maximum(tf.cast(tf.round(shorter / (least + (most - least) * scale)), tf.int32), 1)
    free = tf.cast(sides - side + 1, tf.float32)
    begin = tf.minimum(tf.cast(tf.stack(place) * free, tf.int32), sides - side)
    return stored_window(tf.concat([begin, [side, side]], axis=0), sides, turn)


def _decode_window(encoded, window, size):
    """Decodes a part of a JPEG at a fraction of its size and resizes it."""
    fraction = tf.reduce_sum(tf.cast(tf.reduce_min(window[2:]) >= _RATIOS * size, tf.int32))

    def whole():
        return resize_fast(tf.io.decode_and_crop_jpeg(encoded, window, channels=3), size)

    def reduced(ratio):
        # The window in reduced pixels, and the pixels that it touches.
        begin, sides = tf.split(tf.cast(window, tf.float32) / ratio, 2)
        first = tf.floor(begin)
        touched = tf.concat([first, tf.math.ceil(begin + sides) - first], axis=0)
        image = tf.io.decode_and_crop_jpeg(
            encoded, tf.cast(touched, tf.int32), channels=3, ratio=ratio
        )
        scale = size / sides
        image = tf.raw_ops.ScaleAndTranslate(
            images=tf.cast(image, tf.float32)[None],
            size=[size, size],
            scale=scale,
            translation=(first - begin) * scale,
            kernel_type="triangle",
            antialias=True,
        )
        return _to_uint8(image[0])

    # The ratio is fixed in the graph, so there is a branch for each.
    branches = [whole, *(functools.partial(reduced, int(ratio)) for ratio in _RATIOS)]
    return tf.switch_case(fraction, branches)


def center_crop_covers(size: int) -> tuple[int, int]:
    """Returns height and width in pixels that evaluation resizes an image to cover."""
    return covered_sides((size, size), EVAL_RESIZE_RATIO)


def fit(
    encoded: tf.Tensor,
    image_shape: Sequence[int],
    resize_ratio: float,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Decodes an image, resizes it until it just covers a shape times a ratio, crops the centre.

    Args:
        encoded: one image file, JPEG, PNG, GIF or BMP, a scalar string. A JPEG is brought
            upright, as its Exif metadata say; see `orientation`.
        image_shape: (height, width, channels) of the result, 1 or 3 channels.
        resize_ratio: 1 crops as little as possible.
        interpolation: "bilinear" or "bicubic".

    Returns:
        uint8 (height, width, channels).
    """
    height, width, _ = image_shape
    image = cover(encoded, image_shape, resize_ratio, interpolation)
    top, left = tf.unstack((tf.shape(image)[:2] - [height, width]) // 2)
    return tf.ensure_shape(image[top : top + height, left : left + width], image_shape)


def cover(
    encoded: tf.Tensor,
    image_shape: Sequence[int],
    resize_ratio: float,
    interpolation: str = "bilinear",
) -> tf.Tensor:
    """Decodes an image and resizes it as `fit` does, without the crop.

    Returns:
        uint8 (height, width, channels), at least as high and wide as image_shape.
    """
    channels = image_shape[-1]
    image, turn = decode(encoded, channels), orientation(encoded)
    before = tf.shape(image)[:2]
    sides = tf.cast(before, tf.float64)
    covered = swapped(tf.constant(covered_sides(image_shape, resize_ratio), tf.float64), turn)
    sides = tf.cast(tf.round(tf.reduce_max(covered / sides) * sides), tf.int32)
    # Resizing to the same size changes nothing and takes most of the time of a small image.
    image = tf.cond(
        tf.reduce_all(tf.equal(before, sides)),
        lambda: image,
        lambda: resize(image, sides[0], sides[1], interpolation),
    )
    # Turned last, when it is small.
    return orient(image, turn)


def decode(encoded: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Decodes an image file as it is stored: uint8 (height, width, 1 or 3 channels)."""
    # Always in colour: TensorFlow cannot decode every kind of file to grey.
    # The operation itself: outside a graph, tf.io.decode_image takes longer than its work.
    image = tf.raw_ops.DecodeImage(
        contents=encoded, channels=3, dtype=tf.uint8, expand_animations=False
    )
    if channels == 3:
        return image
    luma = tf.tensordot(tf.cast(image, tf.float32), [0.299, 0.587, 0.114], axes=1)
    return tf.cast(tf.round(luma), tf.uint8)[..., None]


def resize(image: tf.Tensor, height: int, width: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Antialiased: uint8 (any, any, channels) to uint8 (height, width, channels)."""
    image = tf.image.resize(image, [height, width], method=interpolation, antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def resize_fast(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes an image in a fraction of the time of `resize`, from which it differs little.

    A direction that shrinks is averaged over areas, one that grows is interpolated linearly: at
    the same size, and where both grow, the two functions agree.

    Args:
        image: uint8 (any, any, 3).
        size: height and width of the result, in pixels.

    Returns:
        uint8 (size, size, 3).
    """
    sides = tf.shape(image)[:2]

    def shrink(height, width):
        return tf.raw_ops.ResizeArea(images=image[None], size=tf.stack([height, width]))[0]

    def grow(image):
        return tf.image.resize(image, [size, size], method="bilinear")

    ways = [
        lambda: grow(image),
        lambda: grow(shrink(*tf.unstack(tf.minimum(sides, size)))),
        lambda: shrink(size, size),
    ]
    return _to_uint8(tf.switch_case(tf.reduce_sum(tf.cast(sides >= size, tf.int32)), ways))


def _to_uint8(image):
    # Averages of bytes: no need to clip.
    return tf.cast(tf.round(image), tf.uint8)
