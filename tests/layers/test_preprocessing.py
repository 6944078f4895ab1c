"""Preprocessing: the numbers of a network's input, against NumPy, and its rules."""

import keras
import numpy as np
import pytest

from keras_preact.layers import Preprocessing

COLOUR = Preprocessing((4, 5, 3), (10.0, 20.0, 30.0), (1.0, 2.0, 4.0), 1.25, "bicubic", ("a",))


def test_images_are_normalized_by_channel():
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
    expected = (images.astype(np.float32) - [10, 20, 30]) / [1, 2, 4]
    np.testing.assert_allclose(COLOUR.normalize(images), expected, rtol=1e-6)


def test_it_is_serialized_by_keras():
    config = keras.saving.serialize_keras_object(COLOUR)
    assert keras.saving.deserialize_keras_object(config) == COLOUR


def test_grey_images_take_the_mean_of_the_channels_and_more_channels_repeat_them():
    grey, four = COLOUR.with_channels(1), COLOUR.with_channels(4)
    assert (grey.image_shape, grey.mean, grey.std) == ((4, 5, 1), (20.0,), (7 / 3,))
    assert (four.image_shape, four.mean) == ((4, 5, 4), (10.0, 20.0, 30.0, 10.0))
    assert COLOUR.with_channels(3) is COLOUR


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_shape": (4, 5)}, r"image_shape must be \(height, width, channels\)"),
        ({"image_shape": (4, 0, 3)}, "each a whole number above 0"),
        ({"mean": (1.0,)}, "mean must have a finite number for each of 3 channels"),
        ({"mean": (1.0, 2.0, float("nan"))}, "mean must have a finite number"),
        ({"std": (1.0, 2.0, -1.0)}, "std must have a finite number, at least 0, for each of 3"),
        ({"resize_ratio": 0.9}, "resize_ratio must be at least 1. Received: resize_ratio=0.9"),
        ({"interpolation": "lanczos"}, "interpolation must be one of bilinear, bicubic"),
    ],
)
def test_values_outside_their_rules_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        COLOUR.replace(**changes)
