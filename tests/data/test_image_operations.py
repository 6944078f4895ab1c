"""Operations on images, pixel for pixel against a slow reference and against Pillow."""

import colorsys
import itertools
from fractions import Fraction

import numpy as np
import pytest
import slow_operations as slow
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps
from sample_data import difference, smooth_image

from keras_preact.data import image_operations as operations
from keras_preact.data.image_operations import ONE

FILL = (121, 7, 200)
DTYPES = [tf.uint8, tf.float16]


def images_of(channels=3, height=11, width=14):
    """Noise, a smooth image, a dark one and one of a single colour."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
    smooth = smooth_image(height, width, 1)[..., :channels]
    return np.stack([noise, smooth, smooth // 5 + 40, np.full_like(noise, 77)])


def run(operation, images, *arguments):
    """The result of a dtype's computation, the same compiled by XLA and without, as uint8."""
    results = []
    for dtype in DTYPES:
        for jit_compile in (False, True):
            compiled = tf.function(operation, jit_compile=jit_compile, autograph=False)
            result = compiled(tf.cast(images, dtype), *map(tf.constant, arguments))
            assert result.dtype == dtype
            results.append(tf.cast(result, tf.uint8).numpy())
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    return results[0]


def filled(operation):
    return lambda images, of: operation(images, of, tf.constant(FILL, images.dtype))


def fixed(factor):
    return round(factor * ONE)


def enhanced(image, enhance, factor):
    """The result of Pillow."""
    return np.asarray(enhance(Image.fromarray(image.squeeze())).enhance(float(factor)))


@pytest.mark.parametrize("channels", [1, 3])
def test_blends_are_those_of_the_reference_and_of_pillow(channels):
    ways = [
        (operations.BLACK, slow.brightness, ImageEnhance.Brightness),
        (operations.GREY, slow.color, ImageEnhance.Color),
        (operations.MEAN_GREY, slow.contrast, ImageEnhance.Contrast),
    ]
    factors = [Fraction(number, 100) for number in (0, 1, 73, 100, 199)]
    cases = list(itertools.product(images_of(channels, 7, 9), ways, factors))
    images, chosen, of = (list(column) for column in zip(*cases, strict=True))
    kinds = np.array([kind for kind, _, _ in chosen])
    got = run(operations.blended, images, kinds, np.array(list(map(fixed, of))))
    for (image, (_, reference, enhance), factor), result in zip(cases, got, strict=True):
        np.testing.assert_array_equal(result, reference(image, factor))
        assert difference(result.squeeze(), enhanced(image, enhance, factor)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_sharpening_is_that_of_the_reference_and_of_pillow(channels):
    factors = [Fraction(number, 10) for number in (1, 10, 19)]
    cases = list(itertools.product(images_of(channels, 7, 9), factors))
    images, of = (list(column) for column in zip(*cases, strict=True))
    got = run(operations.sharpened, images, np.array(list(map(fixed, of))))
    for (image, factor), result in zip(cases, got, strict=True):
        np.testing.assert_array_equal(result, slow.sharpness(image, factor))
        pillow = enhanced(image, ImageEnhance.Sharpness, factor)
        assert difference(result.squeeze(), pillow).max() <= 1


def test_images_too_small_to_blur_are_not_sharpened():
    images = images_of(3, 2, 5)
    np.testing.assert_array_equal(run(operations.sharpened, images, np.full(4, 2 * ONE)), images)


@pytest.mark.parametrize(
    ("operation", "reference", "pillow"),
    [
        (operations.stretched, slow.autocontrast, ImageOps.autocontrast),
        (operations.equalized, slow.equalize, ImageOps.equalize),
    ],
    ids=["stretched", "equalized"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_histograms_are_changed_as_by_the_reference_and_pillow(
    operation, reference, pillow, channels
):
    # Equalizing changes only images of more than 255 pixels.
    images = images_of(channels, 24, 30)
    got = run(operation, images, np.ones(4, bool))
    for image, result in zip(images, got, strict=True):
        np.testing.assert_array_equal(result, reference(image))
        expected = np.asarray(pillow(Image.fromarray(image.squeeze())))
        assert difference(result.squeeze(), expected).max() <= 1
    np.testing.assert_array_equal(run(operation, images, np.zeros(4, bool)), images)


def test_every_spread_of_values_is_stretched_exactly():
    ramps = np.stack([np.minimum(np.arange(256), high) for high in range(1, 256)]).astype(np.uint8)
    got = operations.stretched(tf.constant(ramps[:, :, None, None]), tf.ones(255, tf.bool))
    expected = [255 * ramp.astype(int) // ramp.max() for ramp in ramps]
    np.testing.assert_array_equal(got[:, :, 0, 0], expected)


def test_solarizing_and_posterizing_are_pillows():
    thresholds, bits = np.array([0, 90, 256, 255]), np.array([8, 3, 1, 8])
    images = images_of()
    masks = 255 & -(1 << (8 - bits))
    got = run(operations.solarized, images, thresholds, masks)
    for image, threshold, kept, result in zip(images, thresholds, bits, got, strict=True):
        np.testing.assert_array_equal(result, slow.posterize(slow.solarize(image, threshold), kept))
        pillow = ImageOps.posterize(ImageOps.solarize(Image.fromarray(image), threshold), int(kept))
        np.testing.assert_array_equal(result, np.asarray(pillow))


def test_affine_maps_are_pillows():
    matrices = [
        (1, 0.3, 0, 0, 1, 0),
        (1, 0, 0, -0.77, 1, 0),
        (1, 0, 5, 0, 1, -3),
        (0.8, 0.6, -2.2, -0.6, 0.8, 5.1),
    ]
    images = images_of()
    coefficients = np.stack([operations.fixed_coefficients(matrix) for matrix in matrices])
    got = run(filled(operations.warped), images, coefficients)
    for image, row, matrix, result in zip(images, coefficients, matrices, got, strict=True):
        np.testing.assert_array_equal(result, slow.warp(image, row, FILL))
        pillow = Image.fromarray(image).transform(
            (14, 11), Image.AFFINE, matrix, Image.NEAREST, fillcolor=FILL
        )
        np.testing.assert_array_equal(result, np.asarray(pillow))


def test_turning_the_hue_keeps_value_and_chroma_and_is_the_standard_librarys():
    images = images_of(3, 6, 7)
    parts = np.array([0.1, -0.25, 0.5, 0.3])
    got = run(operations.hue_shifted, images, np.rint(parts * 2**16).astype(int))
    for image, part, result in zip(images, parts, got, strict=True):
        for place in np.ndindex(6, 7):
            hue, saturation, value = colorsys.rgb_to_hsv(*(image[place] / 255))
            expected = np.multiply(colorsys.hsv_to_rgb((hue + part) % 1, saturation, value), 255)
            assert np.abs(result[place] - expected).max() < 0.51
    np.testing.assert_array_equal(run(operations.hue_shifted, images, np.zeros(4, int)), images)


def test_rectangles_are_painted_over():
    boxes = np.array([[2, 3, 4, 5], [0, 0, 0, 9], [10, 13, 1, 1], [0, 0, 11, 14]])
    images = images_of()
    got = run(filled(operations.erased), images, boxes)
    for image, box, result in zip(images, boxes, got, strict=True):
        np.testing.assert_array_equal(result, slow.erase(image, box, FILL))
