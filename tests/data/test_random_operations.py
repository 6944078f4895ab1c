"""Random operations: which change an image gets, and that nothing else decides it."""

from fractions import Fraction

import numpy as np
import pytest
import slow_operations as slow
import tensorflow as tf
from sample_data import smooth_image

from keras_preact.data import augmentation
from keras_preact.data.image_operations import ONE
from keras_preact.data.order import DataOrder
from keras_preact.data.random_operations import CHANGES

MEAN = (121.4, 7.0, 199.6)
FILL = (121, 7, 200)
OPERATIONS = [
    "rand_augment=9",
    "rand_augment=30",
    "trivial_augment",
    "color_jitter=0.4",
    "hue_jitter=0.3",
    "random_erasing=0.7",
]
COUNT = 40


def draws_of(count, seed=0):
    return DataOrder(count, count, seed).batch(0)[1]


@pytest.fixture(scope="module")
def images():
    """Small images; of more than 255 pixels, fewer of which equalizing would not change."""
    noise = np.random.default_rng(0).integers(0, 256, (COUNT // 2, 18, 21, 3), dtype=np.uint8)
    smooth = np.stack([smooth_image(18, 21, seed) for seed in range(COUNT // 2)])
    return np.concatenate([noise, smooth])


def rand_augment(image, draws, magnitude):
    for number in (0, 1):
        kind = slow.KINDS[slow.chosen(draws, 2 * number, 14)]
        sign = 1 - 2 * slow.chosen(draws, 2 * number + 1, 2)
        image = slow.change(image, kind, int(magnitude), sign, False, FILL)
    return image


def trivial_augment(image, draws, _):
    kind = slow.KINDS[slow.chosen(draws, 32, 14)]
    sign = 1 - 2 * slow.chosen(draws, 34, 2)
    return slow.change(image, kind, slow.chosen(draws, 33, 31), sign, True, FILL)


def color_jitter(image, draws, strength):
    low, high = round((1 - strength) * ONE), round((1 + strength) * ONE)
    factors = [
        Fraction(low + slow.chosen(draws, counter, high - low + 1), ONE) for counter in (64, 65, 66)
    ]
    orders = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    for which in orders[slow.chosen(draws, 67, 6)]:
        change = (slow.brightness, slow.contrast, slow.color)[which]
        # Raised to a product that is a whole number, as the operation does.
        image = change(image, factors[which], Fraction(128, ONE))
    return image


def random_erasing(image, draws, probability):
    height, width = image.shape[:2]
    if slow.random_bits(draws, 128) >= round(probability * 2**32):
        return image
    for attempt in range(10):
        area, aspect = (
            (slow.chosen(draws, 131 + attempt + offset, 1024) + 0.5) / 1024 for offset in (0, 10)
        )
        area = height * width * (0.02 + 0.31 * area)
        aspect = 0.3 * (3.3 / 0.3) ** aspect
        tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if tall < height and wide < width:
            top = slow.chosen(draws, 129, height - tall + 1)
            left = slow.chosen(draws, 130, width - wide + 1)
            return slow.erase(image, (top, left, tall, wide), FILL)
    return image


REFERENCES = {
    "rand_augment": rand_augment,
    "trivial_augment": trivial_augment,
    "color_jitter": color_jitter,
    "random_erasing": random_erasing,
}


def augmented(images, draws, name, **options):
    return augmentation.augmented(tf.constant(images), tf.constant(draws), name, MEAN, **options)


@pytest.mark.parametrize("operation", [each for each in OPERATIONS if "hue" not in each])
def test_each_image_is_changed_as_its_draws_say_pixel_for_pixel(images, operation):
    name, _, number = operation.partition("=")
    draws = draws_of(COUNT)
    expected = [
        REFERENCES[name](image, draw, float(number or 0))
        for image, draw in zip(images, draws, strict=True)
    ]
    np.testing.assert_array_equal(augmented(images, draws, f"none,{operation}"), expected)


@pytest.mark.parametrize(
    ("operations", "dtypes"),
    [
        ("trivial_augment,random_erasing", [tf.float16]),
        ("color_jitter,hue_jitter", [tf.uint8]),
        *(
            pytest.param(each, [tf.uint8, tf.float16], marks=pytest.mark.slow)
            for each in OPERATIONS
        ),
    ],
)
def test_every_way_of_computing_gives_the_same_images(images, operations, dtypes):
    name, draws = f"pad_crop_flip,{operations}", draws_of(COUNT)
    expected = augmented(images, draws, name).numpy()
    assert expected.dtype == np.uint8
    # Each kind of change for the images that drew it, as tf.data computes.
    np.testing.assert_array_equal(augmented(images, draws, name, dense=False), expected)
    # Each image alone: a result does not depend on the batch.
    for place in range(0, COUNT, 9):
        here = slice(place, place + 1)
        alone = augmented(images[here], draws[here], name, dense=False)
        np.testing.assert_array_equal(alone, expected[here])

    # Compiled, as on devices.
    @tf.function(jit_compile=True, autograph=False)
    def compiled(images, draws):
        return augmentation.augmented(images, draws, name, MEAN)

    for dtype in dtypes:
        result = compiled(tf.cast(images, dtype), tf.constant(draws))
        assert result.dtype == dtype
        np.testing.assert_array_equal(result, expected)


def test_grey_images_can_be_changed_in_every_way(images):
    name = ",".join(["pad_crop", *(each for each in OPERATIONS if "rand_" not in each)])
    grey, draws = images[..., :1], draws_of(COUNT)
    changed = augmentation.augmented(tf.constant(grey), tf.constant(draws), name, (12.0,))
    assert changed.shape == grey.shape
    assert (changed.numpy() != grey).any(axis=(1, 2, 3)).mean() > 0.8


def test_all_kinds_signs_and_magnitudes_come_equally_often():
    count, kinds, magnitudes = 14_000, 14, 31
    draws = draws_of(count)
    cells = [
        [slow.chosen(row, counter, bound) for counter, bound in ((32, kinds), (33, magnitudes))]
        for row in draws
    ]
    for column, bound in zip(np.transpose(cells), (kinds, magnitudes), strict=True):
        counts = np.bincount(column, minlength=bound)
        chi_square = ((counts - count / bound) ** 2 / (count / bound)).sum()
        assert chi_square < bound - 1 + 5 * np.sqrt(2 * (bound - 1))
    assert slow.KINDS == CHANGES


def test_operations_change_images_in_the_order_in_which_they_are_written(images):
    draws = draws_of(COUNT)
    one_way = augmented(images, draws, "none,color_jitter=1,random_erasing=1").numpy()
    other_way = augmented(images, draws, "none,random_erasing=1,color_jitter=1").numpy()
    assert (one_way != other_way).any()
    by_hand = augmented(images, draws, "none,color_jitter=1")
    np.testing.assert_array_equal(augmented(by_hand, draws, "none,random_erasing=1"), one_way)


@pytest.mark.parametrize(("base", "colour"), [("pad_crop", (0, 0, 0)), ("pad_crop_flip", FILL)])
def test_erased_pixels_have_the_colour_of_the_padding(base, colour):
    white = np.full((50, 20, 20, 3), 255, np.uint8)
    erased = augmented(white, draws_of(50), f"{base},random_erasing=1").numpy()
    others = erased[(erased != 255).any(axis=-1)]
    assert len(others) > 50 * 20 * 20 * 0.02
    assert set(map(tuple, others.tolist())) == {colour}


def test_operations_of_no_strength_change_nothing(images):
    name = "none,color_jitter=0,hue_jitter=0,random_erasing=0"
    np.testing.assert_array_equal(augmented(images, draws_of(COUNT), name), images)
