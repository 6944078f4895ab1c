"""Operations on batches of images, each image with parameters of its own.

All arithmetic is in whole numbers, fixed point where there are fractions, so that results are
the same to the bit on CPUs, on GPUs and under XLA. They are Pillow's, up to its rounding of
float32; each function names the operation of Pillow that it is tested against.

Images are whole numbers in 0 to 255 (batch, height, width, channels), uint8 or float16; results
have the same shape and dtype.
"""

import numpy as np
import tensorflow as tf

# Fractions are multiples of 2^-16 in coordinates, as in Pillow, and of 2^-20 in colours.
COORDINATE_BITS = 16
COLOR_BITS = 20
ONE = 1 << COLOR_BITS
# Raises products that are whole numbers, but for the rounding of the factor, to these.
_HAIR = 128
# Pillow's conversion to grey, of 16 bits.
_LUMA = (19595, 38470, 7471)

# The image that `blended` blends with.
BLACK, GREY, MEAN_GREY = range(3)


def warped(images: tf.Tensor, coefficients: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Moves pixels by an affine map, taking the nearest: `Image.transform(AFFINE)`.

    Args:
        images: see above.
        coefficients: int32 (batch, 6), multiples of 2^-16: the pixel at (x, y) comes from
            x' = (a x + b y + c), y' = (d x + e y + f), pixels being the floors of both.
        fill: the colour of pixels from outside, of the dtype of images (channels,) or (1,).
    """
    _, height, width, channels = images.shape
    whole = _whole(images)
    a, b, c, d, e, f = (
        part[:, None, None] for part in tf.unstack(tf.cast(coefficients, whole), 6, 1)
    )
    x, y = tf.range(width, dtype=whole)[None, None], tf.range(height, dtype=whole)[None, :, None]
    from_x = _shift_right(a * x + b * y + c, COORDINATE_BITS)
    from_y = _shift_right(d * x + e * y + f, COORDINATE_BITS)
    inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    first = tf.range(tf.shape(images)[0], dtype=tf.int32) * (height * width)
    pixel = tf.where(inside, from_y * width + from_x, 0) + tf.cast(first, whole)[:, None, None]
    found = tf.gather(tf.reshape(images, [-1, channels]), pixel)
    return tf.where(inside[..., None], found, fill)


def blended(images: tf.Tensor, kinds: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends each image with a duller one, or away from it: `ImageEnhance`.

    A factor of 1 gives the image, 0 the duller one, 2 an image as far from the dull one again.

    Args:
        images: see above.
        kinds: int (batch,): BLACK (brightness), GREY (colour, or saturation) or MEAN_GREY
            (contrast).
        factors: int (batch,), multiples of 2^-20, from 0 to 2.
    """
    whole = _whole(images)
    pixels, kinds = tf.cast(images, whole), _of_image(kinds, whole)
    luma = _luma(pixels)
    count = images.shape[1] * images.shape[2]
    total = tf.reduce_sum(luma, axis=[1, 2], keepdims=True)
    mean = (2 * total + count) // (2 * count)
    dull = luma * tf.cast(kinds == GREY, whole) + mean * tf.cast(kinds == MEAN_GREY, whole)
    return _away(pixels, dull, factors, images.dtype)


def sharpened(images: tf.Tensor, factors: tf.Tensor) -> tf.Tensor:
    """Blends each image with a blurred one, or away from it: `ImageEnhance.Sharpness`.

    Args:
        images: see above.
        factors: as for `blended`.
    """
    pixels = tf.cast(images, _whole(images))
    return _away(pixels, _blurred(pixels), factors, images.dtype)


def stretched(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Spreads each channel over 0 to 255: `ImageOps.autocontrast`.

    Args:
        images: see above.
        chosen: boolean (batch,): the images to change.
    """
    whole = _whole(images)
    pixels = tf.cast(images, whole)
    # 64-bit minima have no kernel on GPUs.
    low = 255 - tf.reduce_max(255 - pixels, axis=[1, 2], keepdims=True)
    spread = tf.reduce_max(pixels, axis=[1, 2], keepdims=True) - low
    # Rounded up: the error is below the least fraction, 1/255.
    scales = [0, *(-(-255 * ONE // spread) for spread in range(1, 256))]
    result = _shift_right(
        (pixels - low) * tf.gather(tf.constant(scales, whole), spread), COLOR_BITS
    )
    # A channel of one value stays.
    changes = chosen[:, None, None, None] & (spread > 0)
    return tf.cast(tf.where(changes, result, pixels), images.dtype)


def solarized(images: tf.Tensor, thresholds: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Inverts bright pixels and drops low bits: `ImageOps.solarize`, then `ImageOps.posterize`.

    Args:
        images: see above.
        thresholds: int (batch,): pixels from here on are inverted; 256: none, 0: all, as
            `ImageOps.invert` does.
        masks: int (batch,): the bits that stay; 255: all.
    """
    whole = _whole(images)
    pixels = tf.cast(images, whole)
    thresholds, masks = (_of_image(part, whole) for part in (thresholds, masks))
    inverted = tf.where(pixels >= thresholds, 255 - pixels, pixels)
    return tf.cast(tf.bitwise.bitwise_and(inverted, masks), images.dtype)


def equalized(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Makes the values of each channel about equally frequent: `ImageOps.equalize`.

    Args:
        images: see above.
        chosen: boolean (batch,): the images to equalize.
    """
    _, height, width, channels = images.shape
    whole, count = _whole(images), tf.shape(images)[0]
    pixels = tf.cast(images, whole)
    first = tf.reshape(tf.cast(tf.range(count * channels), whole) * 256, [-1, 1, 1, channels])
    cells = first + pixels
    # Counts are exact in float32, which every device can add up.
    ones = tf.ones([count * (height * width * channels)])
    counts = tf.math.unsorted_segment_sum(ones, tf.reshape(cells, [-1]), count * channels * 256)
    counts = tf.cast(tf.reshape(counts, [-1, 256]), whole)
    before = tf.cumsum(counts, axis=1, exclusive=True)
    values = tf.range(256, dtype=whole)
    top = tf.reduce_max(tf.where(counts > 0, values, 0), axis=1, keepdims=True)
    of_top = tf.reduce_sum(tf.where(values == top, counts, 0), axis=1, keepdims=True)
    step = (height * width - of_top) // 255
    table = tf.minimum((step // 2 + before) // tf.maximum(step, 1), 255)
    table = tf.where(step == 0, values, table)
    result = tf.gather(tf.reshape(tf.cast(table, images.dtype), [-1]), cells)
    return tf.where(chosen[:, None, None, None], result, images)


def hue_shifted(images: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
    """Turns the hue, keeping value and saturation: torchvision's `adjust_hue`. Grey stays.

    Args:
        images: see above.
        shifts: int (batch,), multiples of 2^-16 of the whole circle, from -2^15 to 2^15.
    """
    if images.shape[-1] != 3:
        return images
    whole = _whole(images)
    red, green, blue = tf.unstack(tf.cast(images, whole), axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    # Hues are multiples of 1 / (6 chroma) of the circle: whole numbers.
    chroma = value + tf.maximum(tf.maximum(-red, -green), -blue)
    hue = tf.where(
        value == red,
        green - blue,
        tf.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma),
    )
    turned = hue + _shift_right(
        tf.cast(shifts, whole)[:, None, None] * 6 * chroma + (1 << 15), COORDINATE_BITS
    )
    channels = []
    for sector in (5, 3, 1):
        place = tf.math.floormod(turned + sector * chroma, tf.maximum(6 * chroma, 1))
        below_value = tf.clip_by_value(tf.minimum(place, 4 * chroma - place), 0, chroma)
        channels.append(value - below_value)
    return tf.cast(tf.stack(channels, axis=-1), images.dtype)


def erased(images: tf.Tensor, boxes: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Paints a rectangle over each image.

    Args:
        images: see above.
        boxes: int (batch, 4): top, left, height, width; of height 0: none.
        fill: as for `warped`.
    """
    whole = _whole(images)
    top, left, height, width = (part[:, None] for part in tf.unstack(tf.cast(boxes, whole), 4, 1))
    y, x = (tf.range(side, dtype=whole)[None] for side in images.shape[1:3])
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    return tf.where((rows[:, :, None] & columns[:, None])[..., None], fill, images)


def identity_coefficients() -> np.ndarray:
    """Coefficients of `warped` that leave every pixel where it is, int64 (6,)."""
    return fixed_coefficients((1, 0, 0, 0, 1, 0))


def fixed_coefficients(matrix) -> np.ndarray:
    """Coefficients of `warped`, int64 (6,), of an affine map between centres of pixels.

    Args:
        matrix: a, b, c, d, e, f: the point (x, y) comes from (a x + b y + c, d x + e y + f).
    """
    a, b, c, d, e, f = matrix
    points = np.array([a, b, c + (a + b) / 2, d, e, f + (d + e) / 2])
    return np.floor(points * 2**COORDINATE_BITS + 0.5).astype(np.int64)


def _whole(images):
    # On GPUs TensorFlow computes with int32 on the host; images there are float16.
    return tf.int32 if images.dtype == tf.uint8 else tf.int64


def _of_image(numbers, whole):
    """Numbers (batch,) as those of every pixel."""
    return tf.cast(numbers, whole)[:, None, None, None]


def _away(pixels, dull, factors, dtype):
    """Dull images, and from them a factor of the way to pixels and beyond."""
    factors = _of_image(factors, pixels.dtype)
    result = _shift_right((pixels - dull) * factors + (dull * ONE + _HAIR), COLOR_BITS)
    return tf.cast(tf.clip_by_value(result, 0, 255), dtype)


def _shift_right(numbers, bits):
    return tf.bitwise.right_shift(numbers, tf.constant(bits, numbers.dtype))


def _luma(pixels):
    if pixels.shape[-1] == 1:
        return pixels
    red, green, blue = (pixels[..., n : n + 1] * weight for n, weight in enumerate(_LUMA))
    return _shift_right(red + green + blue + (1 << 15), 16)


def _blurred(pixels):
    """The mean of 3x3 pixels, the middle one counted five times; `ImageFilter.SMOOTH`."""
    height, width = pixels.shape[1:3]
    if min(height, width) < 3:
        return pixels
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * pixels[:, 1:-1, 1:-1]
    # Division by 13, rounded, as a product; exact for sums this small.
    inner = _shift_right((sums + 6) * -(-ONE // 13), COLOR_BITS)
    border = np.pad(np.zeros((height - 2, width - 2), bool), 1, constant_values=True)
    padded = tf.pad(inner, [[0, 0], [1, 1], [1, 1], [0, 0]])
    return tf.where(tf.constant(border)[None, :, :, None], pixels, padded)
