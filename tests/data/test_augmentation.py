"""Cropping, mirroring and resizing, against NumPy and Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sample_data import decode, difference, encode, pillow_center_crop, pillow_resize, smooth_image
from sklearn.datasets import load_sample_images

from keras_preact.data.augmentation import (
    EVAL_RESIZE_RATIO,
    crop_window,
    fit,
    pad_crop,
    random_resized_crop,
    random_scale_crop,
    resize,
    resize_fast,
    scale_window,
)
from keras_preact.data.order import DataOrder

# (height, width, channels), and the padding of height and width: an eighth.
PADDINGS = [
    ((32, 32, 3), 4, 4),
    ((8, 8, 1), 1, 1),
    ((28, 28, 1), 3, 3),
    ((16, 40, 3), 2, 5),
    ((4, 4, 3), 1, 1),
]


def draws_of(count, seed=0):
    """The draws of an epoch, by image."""
    indices, draws = DataOrder(count, count, seed).batch(0)
    return draws[np.argsort(indices)]


def center_crop(encoded, size):
    return fit(encoded, (size, size, 3), EVAL_RESIZE_RATIO)


def reference_pad_crop(image, draws, pad_y, pad_x, flip):
    height, width, _ = image.shape
    padded = np.zeros((height + 2 * pad_y, width + 2 * pad_x, image.shape[2]), np.uint8)
    padded[pad_y : pad_y + height, pad_x : pad_x + width] = image
    top, left = draws[0] % (2 * pad_y + 1), draws[1] % (2 * pad_x + 1)
    cropped = padded[top : top + height, left : left + width]
    return cropped[:, ::-1] if flip and draws[2] % 2 else cropped


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("shape", "pad_y", "pad_x"), PADDINGS)
def test_pad_crop_pads_crops_and_mirrors_each_image_by_its_own_draws(shape, pad_y, pad_x, flip):
    # No zeros in the images: each zero that comes out is padding.
    images = np.random.default_rng(0).integers(1, 256, (200, *shape), dtype=np.uint8)
    draws = draws_of(200)
    expected = [
        reference_pad_crop(image, draw, pad_y, pad_x, flip)
        for image, draw in zip(images, draws, strict=True)
    ]
    cropped = pad_crop(tf.constant(images), tf.constant(draws), flip=flip)
    assert cropped.dtype == tf.uint8
    np.testing.assert_array_equal(cropped, expected)


@pytest.mark.parametrize(("size", "pad"), [(32, 4), (8, 1)])
def test_all_offsets_and_both_mirrors_occur_about_equally_often(size, pad):
    cells = (2 * pad + 1) ** 2 * 2
    count = 50 * cells
    # A pixel and a fainter one to its right tell where the image went and whether it was
    # mirrored. Both stay inside, whatever the offset.
    images = np.zeros((count, size, size, 1), np.uint8)
    images[:, size // 2, size // 2] = 255
    images[:, size // 2, size // 2 + 1] = 128
    cropped = pad_crop(tf.constant(images), tf.constant(draws_of(count)), flip=True).numpy()
    bright, faint = (
        np.argwhere(cropped[..., 0] == value)[:, 1:].astype(int) for value in (255, 128)
    )
    assert len(bright) == len(faint) == count
    mirrored = faint[:, 1] < bright[:, 1]
    down, right = (bright - size // 2).T
    # In the mirror, the pixel at size // 2 begins at size - 1 - size // 2.
    right = np.where(mirrored, right - (size - 1 - 2 * (size // 2)), right)
    cell = ((down + pad) * (2 * pad + 1) + right + pad) * 2 + mirrored
    assert cell.min() >= 0
    occurrences = np.bincount(cell, minlength=cells)
    assert len(occurrences) == cells
    # Chi-square has this mean and variance where all cells are equally likely.
    degrees = cells - 1
    chi_square = ((occurrences - 50) ** 2 / 50).sum()
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


def test_pad_crop_without_flip_never_mirrors():
    # Rising from left to right; after padding with zeros only the ends may fall.
    images = np.broadcast_to(np.arange(100, 132, dtype=np.uint8)[:, None], (500, 32, 32, 1))
    cropped = pad_crop(tf.constant(images), tf.constant(draws_of(500)), flip=False).numpy()
    inside = cropped[:, 4:-4, 4:-4, 0].astype(int)
    assert (np.diff(inside, axis=2) == 1).all()


# Red is the column and green the row, so a crop says where it comes from.
WHERE = np.stack(
    [*np.meshgrid(np.arange(120), np.arange(90)), np.zeros((90, 120), int)], axis=-1
).astype(np.uint8)


def window(crop):
    """Top, left, height, width and mirroring of a resized crop of WHERE.

    Output pixel i shows the column left + (i + 0.5) * width / size - 0.5, a straight line
    save at the ends, where the filter is cut off.
    """
    size = len(crop)
    inside = np.arange(size // 8, size - size // 8)
    (right, x), (down, y) = (
        np.polyfit(inside + 0.5, crop[..., channel].mean(axis=axis)[inside] + 0.5, 1)
        for channel, axis in ((0, 0), (1, 1))
    )
    mirrored = right < 0
    left = x + right * size if mirrored else x
    return *np.rint([y, left, down * size, abs(right) * size]).astype(int).tolist(), mirrored


@pytest.fixture(scope="module")
def crops():
    """400 crops of WHERE to 128 pixels, and their windows."""
    encoded = encode(WHERE)
    crop = tf.function(lambda draws: random_resized_crop(encoded, draws, 128))
    images = [crop(tf.constant(draws)).numpy() for draws in draws_of(400)]
    return images, [window(image) for image in images]


def test_a_random_crop_is_a_window_of_the_image_resized(crops):
    for image, (top, left, height, width, mirrored) in zip(*crops, strict=True):
        assert image.shape == (128, 128, 3)
        assert image.dtype == np.uint8
        assert 0 <= top <= top + height <= 90
        assert 0 <= left <= left + width <= 120
        part = pillow_resize(WHERE[top : top + height, left : left + width], 128, 128)
        assert difference(image, part[:, ::-1] if mirrored else part).max() <= 1


def test_areas_and_aspect_ratios_of_random_crops_keep_to_their_bounds_and_use_them(crops):
    _, _, heights, widths, mirrored = np.transpose(crops[1])
    areas = heights * widths / (90 * 120)
    assert areas.min() >= 0.08
    assert areas.max() <= 1.0
    assert areas.max() > 0.85
    # Sides are whole pixels: half a pixel of width is allowed for.
    assert (widths + 0.5 >= heights * 3 / 4).all()
    assert (widths - 0.5 <= heights * 4 / 3).all()
    assert (widths / heights).min() < 0.8
    assert (widths / heights).max() > 1.25
    # Half of 400 are mirrored, give or take 10.
    assert 150 < mirrored.sum() < 250


def test_random_crops_may_be_as_small_as_8_percent_of_the_image(crops):
    # Heights are spread evenly between the bounds, so about 6 % of crops are below 10 %.
    _, _, heights, widths, _ = np.transpose(crops[1])
    assert 8 < (heights * widths < 0.1 * 90 * 120).sum() < 50


def test_random_crops_lie_everywhere_in_the_image(crops):
    tops, lefts, heights, widths, _ = np.transpose(crops[1])
    centres = np.stack([(tops + heights / 2) / 90, (lefts + widths / 2) / 120])
    # Symmetric about the middle; the standard deviation of one is about 0.15.
    assert np.abs(centres.mean(axis=1) - 0.5).max() < 5 * 0.15 / np.sqrt(400)
    assert centres.min() < 0.25
    assert centres.max() > 0.75
    assert len({tuple(window) for window in crops[1]}) > 390


def test_a_random_crop_depends_on_its_draws_alone():
    encoded = encode(smooth_image(90, 120))
    first, other = (tf.constant(draws) for draws in draws_of(2))
    once = random_resized_crop(encoded, first, 32)
    # Random state of the process must not matter.
    tf.random.set_seed(99)
    np.testing.assert_array_equal(random_resized_crop(encoded, first, 32), once)
    assert difference(random_resized_crop(encoded, other, 32).numpy(), once.numpy()).max() > 0


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_random_crops_of_a_jpeg_resemble_those_of_the_same_image_as_png(mode):
    # JPEG is decoded within the window only, PNG as a whole: two ways to one result.
    jpeg = encode(smooth_image(90, 120), "JPEG", mode, subsampling=0)
    png = encode(decode(jpeg))
    for draws in draws_of(20):
        left, right = (random_resized_crop(file, tf.constant(draws), 48) for file in (jpeg, png))
        # TensorFlow's fast DCT is up to about 1 off Pillow's exact one.
        assert difference(left.numpy(), right.numpy()).mean() < 2


@pytest.mark.parametrize(
    ("height", "width"), [(90, 120), (121, 77), (100, 100), (20, 30), (37, 37), (1, 1), (40, 300)]
)
def test_center_crop_is_pillows_resized_short_side_and_centre(height, width):
    image = smooth_image(height, width)
    cropped = center_crop(encode(image), 56)
    assert cropped.dtype == tf.uint8
    assert difference(cropped.numpy(), pillow_center_crop(image, 56)).max() <= 1


def test_center_crop_of_an_image_of_the_final_size_takes_256_of_224_pixels():
    # Nothing is resized, so the crop is exact: 16 pixels are lost on each side.
    image = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(center_crop(encode(image), 224), image[16:240, 38:262])


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *(("PNG", mode) for mode in ("L", "LA", "RGBA", "P", "1")),
        *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
        ("GIF", "RGB"),
        ("BMP", "RGB"),
    ],
)
def test_images_of_every_kind_come_out_with_three_channels(file_format, mode):
    options = {"subsampling": 0} if file_format == "JPEG" else {}
    encoded = encode(smooth_image(60, 80), file_format, mode, **options)
    cropped = center_crop(encoded, 32).numpy()
    assert cropped.shape == (32, 32, 3)
    assert difference(cropped, pillow_center_crop(decode(encoded), 32)).mean() < 2
    assert random_resized_crop(encoded, tf.constant([5, 6, 7]), 32).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [("PNG", "L"), ("PNG", "RGBA"), ("JPEG", "CMYK"), ("GIF", "RGB"), ("BMP", "RGB")],
)
def test_files_of_every_kind_come_out_grey_for_a_net_of_one_channel(file_format, mode):
    encoded = encode(smooth_image(60, 80), file_format, mode)
    fitted = fit(encoded, (60, 80, 1), 1.0).numpy()
    grey = decode(encoded) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(fitted[..., 0] - grey).mean() < 2


@pytest.mark.parametrize("shape", [(24, 32, 3), (32, 24, 3), (9, 40, 3)])
def test_fit_covers_a_shape_that_is_not_square_and_crops_the_centre(shape):
    image = smooth_image(60, 80)
    height, width, _ = shape
    scale = max(height / 60, width / 80)
    tall, wide = round(60 * scale), round(80 * scale)
    top, left = (tall - height) // 2, (wide - width) // 2
    expected = pillow_resize(image, tall, wide)[top : top + height, left : left + width]
    assert difference(fit(encode(image), shape, 1.0).numpy(), expected).max() <= 1


@pytest.mark.parametrize(("height", "width"), [(90, 120), (56, 56), (20, 30)])
def test_bicubic_crops_are_pillows(height, width):
    image = smooth_image(height, width)
    scale = 60 / min(height, width)
    sides = round(width * scale), round(height * scale)
    expected = np.asarray(Image.fromarray(image).resize(sides, Image.BICUBIC))
    top, left = (sides[1] - 56) // 2, (sides[0] - 56) // 2
    cropped = fit(encode(image), (56, 56, 3), 60 / 56, "bicubic").numpy()
    # Pillow rounds between the two directions, and 0 to 255 cuts off what overshoots.
    assert difference(cropped, expected[top : top + 56, left : left + 56]).max() <= 2


def test_fit_of_a_grayscale_file_of_the_right_shape_is_the_file():
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    np.testing.assert_array_equal(fit(encode(image), (8, 8, 1), 1.0)[..., 0], image)


def test_resizing_keeps_a_constant_and_both_ends_of_the_byte():
    for value in (0, 1, 254, 255):
        image = tf.fill([5, 7, 3], tf.constant(value, tf.uint8))
        np.testing.assert_array_equal(resize(image, 13, 3), np.full((13, 3, 3), value))


def test_the_padding_has_the_colour_that_is_asked_for():
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    draws = np.random.default_rng(1).integers(0, 2**31 - 1, (40, 4)).astype(np.int32)
    fill = (124, 5, 250)
    cropped = pad_crop(tf.constant(images), tf.constant(draws), flip=False, fill=fill).numpy()
    for image, draw, got in zip(images, draws, cropped, strict=True):
        padded = np.empty((40, 40, 3), np.uint8)
        padded[:] = fill
        padded[4:36, 4:36] = image
        top, left = draw[0] % 9, draw[1] % 9
        np.testing.assert_array_equal(got, padded[top : top + 32, left : left + 32])


def photograph():
    """A real photograph, uint8 (427, 640, 3)."""
    return load_sample_images().images[0]


def pillow_crop(image, window, size):
    """A window of an image, resized by Pillow's antialiased triangle."""
    top, left, height, width = map(int, window)
    return pillow_resize(image[top : top + height, left : left + width], size, size)


def unmirrored(count):
    return [tf.constant(draws // 2 * 2) for draws in draws_of(count)]


# The photograph's parts are decoded to all, 1/2, 1/4 and 1/8 of their size, and some enlarged.
@pytest.mark.parametrize(
    ("size", "most"), [(320, 1.5), (160, 3.0), (80, 3.5), (40, 4.0), (20, 4.0)]
)
def test_random_crops_of_a_photograph_are_near_pillows_of_the_same_windows(size, most):
    encoded = encode(photograph(), "JPEG", quality=90)
    decoded, sides = decode(encoded), photograph().shape[:2]
    means = []
    for draws in unmirrored(12):
        window = crop_window(tf.constant(sides), draws, tf.constant(1))
        cropped = random_resized_crop(encoded, draws, size).numpy()
        means.append(difference(cropped, pillow_crop(decoded, window, size)).mean())
    # Crops of other windows differ by 60; TensorFlow's fast DCT by 1 from Pillow's exact one.
    assert np.mean(means) < most
    assert np.max(means) < 2 * most


@pytest.mark.parametrize("size", [160, 80, 40, 20])
def test_a_part_decoded_to_a_fraction_lies_where_its_window_does(size):
    # Brightness tells the place: a shift by a pixel of the result is 255 / size.
    ramp = np.broadcast_to(np.linspace(0, 255, 640)[None, :, None], (427, 640, 3))
    ramps = [ramp.astype(np.uint8), ramp[::-1, ::-1].astype(np.uint8)]
    for image in ramps:
        encoded = encode(image, "JPEG", quality=95)
        for draws in unmirrored(10):
            window = crop_window(tf.constant(image.shape[:2]), draws, tf.constant(1))
            cropped = random_resized_crop(encoded, draws, size).numpy().astype(float)
            expected = pillow_crop(image, window, size).astype(float)
            inner = slice(2, -2)
            assert abs((cropped - expected)[:, inner].mean()) < 1


@pytest.mark.parametrize("sides", [(30, 47), (64, 64), (64, 200), (30, 64), (20, 150), (150, 20)])
def test_fast_resizing_is_near_pillows_and_equal_where_nothing_shrinks(sides):
    image = photograph()[100 : 100 + sides[0], 200 : 200 + sides[1]]
    resized = resize_fast(tf.constant(image), 64).numpy()
    off = difference(resized, pillow_resize(image, 64, 64))
    assert off.max() <= 1 if max(sides) <= 64 else off.mean() < 6


@pytest.mark.parametrize("shape", [(96, 128), (128, 64), (200, 190), (65, 300)])
def test_fast_shrinking_takes_means_over_areas(shape):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    # Every pixel 64 times in each direction: its share of each area is then a whole number.
    fine = image.repeat(64, axis=0)
    rows = fine.reshape(64, shape[0], shape[1], 3).mean(axis=1)
    expected = rows.repeat(64, axis=1).reshape(64, 64, shape[1], 3).mean(axis=2)
    assert np.abs(resize_fast(tf.constant(image), 64).numpy() - expected).max() <= 0.51


def test_scale_crops_are_224_pixels_of_256_to_480_and_lie_everywhere_in_the_image():
    sides = tf.constant([480, 640])
    draw = tf.function(lambda draws: scale_window(sides, draws, tf.constant(1)))
    windows = np.array([draw(tf.constant(draws)).numpy() for draws in draws_of(400)])
    tops, lefts, heights, widths = windows.T
    np.testing.assert_array_equal(heights, widths)
    # 224 pixels of an image whose shorter side, 480 here, is scaled to 256 ... 480.
    assert 224 <= heights.min() < 230 < 400 < heights.max() <= 420
    scaled = 224 * 480 / heights
    # Evenly drawn: the mean of 400 lies within five standard errors of 368.
    assert abs(scaled.mean() - 368) < 5 * (480 - 256) / np.sqrt(12 * 400)
    assert (tops >= 0).all()
    assert (lefts >= 0).all()
    assert (tops + heights <= 480).all()
    assert (lefts + widths <= 640).all()
    shares = lefts / (640 - widths)
    assert abs(shares.mean() - 0.5) < 5 / np.sqrt(12 * 400)


def test_a_scale_crop_is_pillows_of_the_same_window():
    encoded = encode(photograph(), "JPEG", quality=90)
    decoded, sides = decode(encoded), photograph().shape[:2]
    for draws in unmirrored(6):
        window = scale_window(tf.constant(sides), draws, tf.constant(1))
        cropped = random_scale_crop(encoded, draws, 160).numpy()
        assert difference(cropped, pillow_crop(decoded, window, 160)).mean() < 6
