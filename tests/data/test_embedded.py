"""Data sets that need no download."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_preact.data import embedded


@pytest.fixture(scope="module")
def digits():
    return embedded.digits()


def test_digits_have_1437_training_and_360_evaluation_images(digits):
    train, evaluation, names = digits
    assert train.images.shape == (1437, 8, 8, 1)
    assert evaluation.images.shape == (360, 8, 8, 1)
    assert (len(train), len(evaluation)) == (1437, 360)
    assert names == list("0123456789")


def test_every_fifth_digit_of_scikit_learn_is_for_evaluation_and_the_rest_for_training(digits):
    # scikit-learn's values are 0 to 16; a byte is 255 / 16 of that, so turning it back
    # must hit the same whole number.
    bunch = load_digits()
    train, evaluation, _ = digits
    fifth = np.arange(1797) % 5 == 0
    for split, mask in ((evaluation, fifth), (train, ~fifth)):
        np.testing.assert_array_equal(
            np.rint(split.images[..., 0] / 255 * 16), bunch.images[mask].astype(int)
        )
        np.testing.assert_array_equal(split.labels, bunch.target[mask])


def test_digits_are_bytes_from_0_to_255(digits):
    for split in digits[:2]:
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert (split.images.min(), split.images.max()) == (0, 255)


@pytest.mark.parametrize("size", [8, 32])
def test_synthetic_images_have_the_size_asked_for(size):
    train, evaluation, names = embedded.synthetic(size)
    assert train.images.shape == (1024, size, size, 3)
    assert evaluation.images.shape == (256, size, size, 3)
    for split in (train, evaluation):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert set(split.labels.tolist()) == set(range(len(names))) == set(range(10))


def test_synthetic_images_are_the_same_at_every_call():
    once, again = embedded.synthetic(8), embedded.synthetic(8)
    for left, right in zip(once[:2], again[:2], strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.labels, right.labels)


def test_synthetic_classes_are_told_apart_by_the_nearest_mean_training_image():
    # A network can learn it, and what it learns holds for the evaluation images. Noise must not
    # wrap around 255.
    train, evaluation, _ = embedded.synthetic(8)
    pixels = train.images.reshape(1024, -1).astype(float)
    means = np.stack([pixels[train.labels == label].mean(axis=0) for label in range(10)])
    distances = np.abs(evaluation.images.reshape(256, 1, -1) - means).mean(axis=2)
    np.testing.assert_array_equal(distances.argmin(axis=1), evaluation.labels)
    # The mean noise is 31.5 and lies up to 31.5 away from itself.
    own = evaluation.images.reshape(256, -1) - means[evaluation.labels]
    assert np.abs(own).max() < 45


def test_no_synthetic_image_occurs_twice():
    train, evaluation, _ = embedded.synthetic(8)
    images = np.concatenate([train.images, evaluation.images])
    assert len({image.tobytes() for image in images}) == 1280


def test_photographs_are_real_of_any_shape_and_the_same_at_every_call():
    images = embedded.photographs((20, 30, 3), 12)
    assert (images.shape, images.dtype) == ((12, 20, 30, 3), np.uint8)
    assert images.std() > 30 and len({image.tobytes() for image in images}) == 12
    np.testing.assert_array_equal(images, embedded.photographs((20, 30, 3), 12))
    assert not np.array_equal(images, embedded.photographs((20, 30, 3), 12, seed=1))
    assert embedded.photographs((8, 8, 1), 2).shape == (2, 8, 8, 1)
