"""Random operations of `--augmentation`: which change each image gets, from its draws.

RandAugment and TrivialAugment are torchvision's: the same operations, ranges, 31 magnitudes and
nearest pixels. Keras' own layers (`keras.layers.RandAugment`, `RandomErasing`, ...) keep the state
of a random generator, so a resumed run would see other images, and RandAugment chooses the same
operations for all images of a batch.

Each function takes images and their draws, and returns images of the same shape and dtype.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_preact.data import image_operations as operations
from keras_preact.data.image_operations import ONE
from keras_preact.data.random_bits import below, random_bits

# Magnitudes are 0 to 30, as torchvision's.
LARGEST_MAGNITUDE = 30
# Operations that RandAugment applies to each image, one after the other.
RAND_AUGMENT_OPERATIONS = 2
# Attempts of random erasing to find a rectangle inside the image, and its grid of sizes.
_ATTEMPTS, _GRID = 10, 1024
_ERASED_AREA, _ERASED_ASPECT = (0.02, 0.33), (0.3, 3.3)

_GEOMETRIC = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
_BLENDS = {
    "Brightness": operations.BLACK,
    "Color": operations.GREY,
    "Contrast": operations.MEAN_GREY,
}
CHANGES = (
    "Identity",
    *_GEOMETRIC,
    *_BLENDS,
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


class Context(NamedTuple):
    """The surroundings of an operation.

    Args:
        fill: the colour of what an operation uncovers, of the dtype of images.
        dense: whether all kinds of changes are computed for all images, as XLA needs; otherwise
            each kind for the images that drew it, which is faster on CPUs.
    """

    fill: tf.Tensor
    dense: bool = True


class Ranges(NamedTuple):
    """The largest changes of a policy, those of magnitude 30.

    Args:
        shear: horizontal pixels for each vertical one, and the reverse.
        translate: pixels of a (height, width).
        rotate_degrees: either way.
        enhance: distance of the factors of brightness, colour, contrast and sharpness from 1.
        dropped_bits: of 8.
    """

    shear: float
    translate: Callable[[int], float]
    rotate_degrees: float
    enhance: float
    dropped_bits: int


RAND_AUGMENT = Ranges(0.3, lambda side: 150 / 331 * side, 30, 0.9, 4)
TRIVIAL_AUGMENT = Ranges(0.99, lambda side: 32, 135, 0.99, 6)


def rand_augment(
    images: tf.Tensor, draws: tf.Tensor, magnitude: float, context: Context
) -> tf.Tensor:
    """Applies two operations of one magnitude, drawn with replacement from the 14.

    Source: "RandAugment: Practical automated data augmentation with a reduced search space".
    """
    table = _table(RAND_AUGMENT, (round(magnitude),), *images.shape[1:3])
    for number in range(RAND_AUGMENT_OPERATIONS):
        bits = random_bits(draws, [2 * number, 2 * number + 1])
        row = 2 * below(bits[:, 0], len(CHANGES)) + below(bits[:, 1], 2)
        images = _changed(images, tf.gather(table, row), context)
    return images


def trivial_augment(
    images: tf.Tensor, draws: tf.Tensor, _: float | None, context: Context
) -> tf.Tensor:
    """Applies one of the 14 operations with a random magnitude in wide ranges.

    Source: "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", the wide space.
    """
    magnitudes = range(LARGEST_MAGNITUDE + 1)
    table = _table(TRIVIAL_AUGMENT, tuple(magnitudes), *images.shape[1:3])
    bits = random_bits(draws, [32, 33, 34])
    row = below(bits[:, 0], len(CHANGES)) * len(magnitudes) + below(bits[:, 1], len(magnitudes))
    return _changed(images, tf.gather(table, 2 * row + below(bits[:, 2], 2)), context)


def color_jitter(
    images: tf.Tensor, draws: tf.Tensor, strength: float, context: Context
) -> tf.Tensor:
    """Changes brightness, contrast and saturation by factors of 1 +- strength, in random order.

    torchvision's `ColorJitter(strength, strength, strength)`.
    """
    bits = random_bits(draws, [64, 65, 66, 67])
    kinds = (operations.BLACK, operations.MEAN_GREY, operations.GREY)
    orders = np.array([(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
    order = tf.gather(tf.constant(orders), below(bits[:, 3], 6))
    low = round((1 - strength) * ONE)
    factors = low + below(bits[:, :3], round((1 + strength) * ONE) - low + 1)
    for place in range(3):
        which = order[:, place]
        factor = tf.gather(factors, which, batch_dims=1)
        images = operations.blended(images, tf.gather(tf.constant(kinds), which), factor)
    return images


def hue_jitter(images: tf.Tensor, draws: tf.Tensor, largest: float, context: Context) -> tf.Tensor:
    """Turns the hue by up to a part of its circle either way.

    torchvision's `ColorJitter(hue=largest)`.
    """
    most = round(largest * (1 << operations.COORDINATE_BITS))
    shifts = below(random_bits(draws, [96])[:, 0], 2 * most + 1) - most
    return operations.hue_shifted(images, shifts)


def random_erasing(
    images: tf.Tensor, draws: tf.Tensor, probability: float, context: Context
) -> tf.Tensor:
    """Paints a rectangle of 2 to 33 % of the area, of an aspect of 0.3 to 3.3, over some images.

    torchvision's `RandomErasing(probability)` after normalization. Like it, it leaves an image
    alone where ten rectangles in a row were larger than the image.
    Source: "Random Erasing Data Augmentation".
    """
    height, width = images.shape[1:3]
    bits = random_bits(draws, range(128, 128 + 3 + 2 * _ATTEMPTS))
    grid = below(bits[:, 3:], _GRID)
    # Products of square roots, as tables in fixed point: no device rounds them differently.
    middles = (np.arange(_GRID) + 0.5) / _GRID
    areas = height * width * (_ERASED_AREA[0] + np.ptp(_ERASED_AREA) * middles)
    aspects = np.exp(np.log(_ERASED_ASPECT[0]) + np.ptp(np.log(_ERASED_ASPECT)) * middles)
    root_area, tall, wide = (
        tf.constant(np.rint(numbers * 2**16).astype(np.int64))
        for numbers in (np.sqrt(areas), np.sqrt(aspects), np.sqrt(1 / aspects))
    )
    root = tf.gather(root_area, grid[:, :_ATTEMPTS])
    heights, widths = (
        _shift_right(root * tf.gather(sides, grid[:, _ATTEMPTS:]) + (1 << 31), 32)
        for sides in (tall, wide)
    )
    fits = (heights < height) & (widths < width)
    # The first that fits.
    first = tf.argmax(tf.cast(fits, tf.float32), axis=1)
    box_height, box_width, found = (
        tf.gather(sides, first, axis=1, batch_dims=1) for sides in (heights, widths, fits)
    )
    drawn = bits[:, 0] < round(probability * 2**32)
    box_height = tf.where(drawn & found, box_height, 0)
    top = below(bits[:, 1], height - box_height + 1)
    left = below(bits[:, 2], tf.maximum(width - box_width, 0) + 1)
    boxes = tf.stack([top, left, box_height, box_width], axis=1)
    return operations.erased(images, boxes, context.fill)


def _shift_right(numbers, bits):
    return tf.bitwise.right_shift(numbers, tf.constant(bits, numbers.dtype))


class Column:
    """Columns of a change: six coefficients of an affine map, then these."""

    KIND, FACTOR, SHARPNESS, STRETCHES, THRESHOLD, BITS, EQUALIZES, COUNT = range(6, 14)


# The change that changes nothing.
_NEUTRAL = np.array([*operations.identity_coefficients(), 0, ONE, ONE, 0, 256, 255, 0])


def _changed(images, change, context):
    """Applies to each image its change, int64 (batch, Column.COUNT)."""
    groups = [
        ((Column.SHARPNESS,), lambda some, of: operations.sharpened(some, of[:, Column.SHARPNESS])),
        (range(6), lambda some, of: operations.warped(some, of[:, :6], context.fill)),
        (
            (Column.FACTOR,),
            lambda some, of: operations.blended(some, of[:, Column.KIND], of[:, Column.FACTOR]),
        ),
        (
            (Column.STRETCHES,),
            lambda some, of: operations.stretched(some, of[:, Column.STRETCHES] == 1),
        ),
        (
            (Column.THRESHOLD, Column.BITS),
            lambda some, of: operations.solarized(
                some, of[:, Column.THRESHOLD], of[:, Column.BITS]
            ),
        ),
        (
            (Column.EQUALIZES,),
            lambda some, of: operations.equalized(some, of[:, Column.EQUALIZES] == 1),
        ),
    ]
    for columns, operation in groups:
        if context.dense:
            images = operation(images, change)
        else:
            images = _on_some(images, operation, change, np.array(columns))
    return images


def _on_some(images, operation, change, columns):
    """Applies an operation to the images that it changes: some of their columns are not neutral."""
    differs = tf.gather(change, columns, axis=1) != _NEUTRAL[columns]
    numbers = tf.where(tf.reduce_any(differs, axis=1))[:, 0]

    def changed():
        some = operation(tf.gather(images, numbers), tf.gather(change, numbers))
        return tf.tensor_scatter_nd_update(images, numbers[:, None], some)

    return tf.cond(tf.size(numbers) > 0, changed, lambda: images)


@functools.lru_cache(maxsize=16)
def _rows(ranges, magnitudes, height, width):
    """Returns changes by kind, magnitude and sign, int64 (rows, Column.COUNT)."""
    return np.stack(
        [
            _change(name, sign * magnitude / LARGEST_MAGNITUDE, ranges, height, width)
            for name in CHANGES
            for magnitude in magnitudes
            for sign in (1, -1)
        ]
    )


def _table(ranges, magnitudes, height, width):
    return tf.constant(_rows(ranges, magnitudes, height, width))


def _change(name: str, share: float, ranges: Ranges, height: int, width: int) -> np.ndarray:
    """Returns the row of one change.

    Args:
        name: one of CHANGES.
        share: of the largest change, -1 to 1; some changes have no sign.
        ranges: of the policy.
        height: of the images.
        width: of the images.
    """
    row = _NEUTRAL.copy()
    factor = round((1 + share * ranges.enhance) * ONE)
    if name in _GEOMETRIC:
        matrix = _inverse_map(name, share, ranges, height, width)
        row[:6] = operations.fixed_coefficients(matrix)
    elif name in _BLENDS:
        row[[Column.KIND, Column.FACTOR]] = _BLENDS[name], factor
    elif name == "Sharpness":
        row[Column.SHARPNESS] = factor
    elif name == "Posterize":
        row[Column.BITS] = 255 & -(1 << round(abs(share) * ranges.dropped_bits))
    elif name == "Solarize":
        row[Column.THRESHOLD] = np.ceil(255 - 255 * abs(share))
    elif name == "AutoContrast":
        row[Column.STRETCHES] = 1
    elif name == "Equalize":
        row[Column.EQUALIZES] = 1
    return row


def _inverse_map(name: str, share: float, ranges: Ranges, height: int, width: int) -> tuple:
    """Where a pixel of the result comes from, as in `operations.fixed_coefficients`.

    Shears keep the upper left corner in place, rotations the centre.
    """
    if name == "ShearX":
        return 1, share * ranges.shear, 0, 0, 1, 0
    if name == "ShearY":
        return 1, 0, 0, share * ranges.shear, 1, 0
    if name == "TranslateX":
        return 1, 0, -int(share * ranges.translate(width)), 0, 1, 0
    if name == "TranslateY":
        return 1, 0, 0, 0, 1, -int(share * ranges.translate(height))
    angle = -np.radians(share * ranges.rotate_degrees)
    # Rounded as in Pillow: a quarter turn is exact.
    cos, sin = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)
    x, y = width / 2, height / 2
    return cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y


RANDOM_OPERATIONS = {
    "rand_augment": rand_augment,
    "trivial_augment": trivial_augment,
    "color_jitter": color_jitter,
    "hue_jitter": hue_jitter,
    "random_erasing": random_erasing,
}
