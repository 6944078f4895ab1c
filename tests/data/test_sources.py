"""Images in memory and as encoded files."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from sample_data import difference, encode, pillow_center_crop, smooth_image

from keras_preact.data.order import DRAWS, DataOrder
from keras_preact.data.sources import Encoded, InMemory, spread


def in_memory(count=11, channels=3):
    images = np.random.default_rng(0).integers(0, 256, (count, 6, 5, channels), dtype=np.uint8)
    return InMemory(images, np.arange(count, dtype=np.int32) * 10)


def encoded(images, size=16):
    files = tf.constant([encode(image) for image in images])
    labels = tf.range(len(images)) * 10
    return Encoded(lambda index: (files[index], labels[index]), len(images), size)


def various_images(count):
    """Photos of different sizes, so that some take longer to decode than others."""
    return [smooth_image(20 + 13 * (n % 5), 90 - 11 * (n % 4), seed=n) for n in range(count)]


def indices_and_draws(indices, batch_size):
    """Batches as `Dataset.train` makes them, of chosen images."""
    draws = np.random.default_rng(1).integers(0, 2**31 - 1, (len(indices), DRAWS), dtype=np.int32)
    samples = tf.data.Dataset.from_tensor_slices((np.array(indices, np.int64), draws))
    return samples.batch(batch_size, drop_remainder=True)


def test_statistics_of_images_in_memory_are_numpys_over_all_pixels():
    source = in_memory()
    mean, std = source.statistics()
    pixels = source.images.reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(axis=0), rtol=1e-12)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_the_deviation_of_a_constant_channel_is_not_zero(value):
    images = in_memory(channels=2).images.copy()
    images[..., 1] = value
    mean, std = InMemory(images, np.zeros(len(images), np.int32)).statistics()
    assert mean[1] == value
    assert std[1] == 1.0
    np.testing.assert_allclose(std[0], images[..., 0].std(), rtol=1e-12)


def test_statistics_of_encoded_images_are_those_of_their_evaluation_crops():
    images = various_images(9)
    mean, std = encoded(images).statistics()
    pixels = np.stack([pillow_center_crop(image, 16) for image in images]).reshape(-1, 3)
    # Pillow and TensorFlow round a few pixels differently.
    np.testing.assert_allclose(mean, pixels.mean(axis=0), atol=0.2)
    np.testing.assert_allclose(std, pixels.std(axis=0), atol=0.2)


@pytest.mark.parametrize(("limit", "used"), [(5, [0, 2, 4, 6, 8]), (3, [0, 4, 8]), (1, [0])])
def test_statistics_of_many_encoded_images_are_those_of_some_spread_evenly(
    monkeypatch, limit, used
):
    monkeypatch.setattr(Encoded, "STATISTICS_IMAGES", limit)
    # Constant images: the mean of every image is its value.
    values = np.array([3, 250, 17, 90, 201, 55, 130, 8, 77])
    images = [np.full((20, 20, 3), value, np.uint8) for value in values]
    mean, std = encoded(images).statistics()
    np.testing.assert_allclose(mean, [values[used].mean()] * 3)
    np.testing.assert_allclose(std, [max(values[used].std(), 1.0)] * 3)


def test_selected_images_in_memory_are_those_of_the_mask_in_order():
    source, mask = in_memory(), np.arange(11) % 3 == 1
    chosen = source.select(mask)
    assert len(chosen) == 4
    np.testing.assert_array_equal(chosen.images, source.images[[1, 4, 7, 10]])
    np.testing.assert_array_equal(chosen.labels, [10, 40, 70, 100])


def test_selected_encoded_images_are_those_of_the_mask_in_order():
    images = various_images(11)
    chosen = encoded(images).select(np.arange(11) % 3 == 1)
    assert len(chosen) == 4
    fetched = chosen.eval_images(tf.data.Dataset.from_tensor_slices(np.arange(4)))
    for (image, label), number in zip(fetched.as_numpy_iterator(), (1, 4, 7, 10), strict=True):
        assert label == number * 10
        assert difference(image, pillow_center_crop(images[number], 16)).max() <= 1


def test_a_selection_can_be_selected_from():
    twice = encoded(various_images(11)).select(np.arange(11) % 2 == 0).select(np.arange(6) > 3)
    fetched = twice.eval_images(tf.data.Dataset.from_tensor_slices(np.arange(2)))
    assert [int(label) for _, label in fetched] == [80, 100]


def test_training_batches_without_augmentation_are_the_images_asked_for():
    source, wanted = in_memory(), [3, 3, 0, 10, 7, 1]
    batches = source.train_batches(indices_and_draws(wanted, 2), "none")
    for step, (images, labels) in enumerate(batches.as_numpy_iterator()):
        some = wanted[2 * step : 2 * step + 2]
        np.testing.assert_array_equal(images, source.images[some])
        np.testing.assert_array_equal(labels, np.array(some) * 10)
    assert step == 2


def test_encoded_training_batches_without_augmentation_are_evaluation_crops():
    images, wanted = various_images(6), [5, 0, 0, 4, 2, 1]
    batches = encoded(images).train_batches(indices_and_draws(wanted, 3), "none")
    fetched = list(itertools.chain.from_iterable(zip(*b, strict=True) for b in batches))
    assert [int(label) for _, label in fetched] == [10 * n for n in wanted]
    for (image, _), number in zip(fetched, wanted, strict=True):
        assert difference(image.numpy(), pillow_center_crop(images[number], 16)).max() <= 1


def test_decoding_in_parallel_keeps_the_order():
    # Large and small files by turns: the small ones are done first.
    images = [smooth_image(*((600, 800) if n % 2 else (9, 9)), seed=n) for n in range(8)]
    indices, _ = DataOrder(8, 64, seed=0).batch(0)
    batches = encoded(images).train_batches(indices_and_draws(indices, 2), "random_resized_crop")
    labels = np.concatenate([labels for _, labels in batches.as_numpy_iterator()])
    np.testing.assert_array_equal(labels, indices * 10)
    fetched = encoded(images).eval_images(tf.data.Dataset.from_tensor_slices(indices))
    assert [int(label) for _, label in fetched] == (indices * 10).tolist()


@pytest.mark.parametrize("augment", ["none", "pad_crop", "pad_crop_flip"])
def test_batches_from_memory_have_the_types_that_a_network_is_told(augment):
    spec = in_memory().train_batches(indices_and_draws([0, 1], 2), augment).element_spec
    assert spec == (tf.TensorSpec([2, 6, 5, 3], tf.uint8), tf.TensorSpec([2], tf.int32))


@pytest.mark.parametrize("augment", ["none", "random_resized_crop"])
def test_batches_of_files_have_the_types_that_a_network_is_told(augment):
    source = encoded(various_images(2))
    spec = source.train_batches(indices_and_draws([0, 1], 2), augment).element_spec
    assert spec == (tf.TensorSpec([2, 16, 16, 3], tf.uint8), tf.TensorSpec([2], tf.int32))


@pytest.mark.parametrize(
    ("count", "most", "expected"),
    [
        (1, 5, [0]),
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 9, [0, 1, 2, 3, 4]),
        (7, 1, [0]),
        (10, 2, [0, 9]),
        (10, 4, [0, 3, 6, 9]),
        (10, 3, [0, 4, 9]),
    ],
)
def test_some_of_many_images_are_spread_evenly(count, most, expected):
    indices = spread(count, most)
    assert indices.dtype == np.int64
    assert indices.tolist() == expected


@pytest.mark.parametrize("count", [64, 65, 100, 360, 9999, 50_000, 1_281_167])
def test_no_image_is_chosen_twice_and_steps_differ_by_one_at_most(count):
    indices = spread(count, 64)
    assert (len(indices), indices[0], indices[-1]) == (64, 0, count - 1)
    steps = np.diff(indices)
    assert steps.min() >= 1
    assert np.ptp(steps) <= 1


def test_an_image_in_memory_has_a_number_and_a_file_that_loses_nothing():
    for channels in (1, 3):
        source = in_memory(channels=channels)
        assert source.where(7) == "image 7"
        np.testing.assert_array_equal(tf.io.decode_png(source.file(7)), source.images[7])


def test_an_encoded_image_has_the_name_it_is_given_and_its_own_file():
    images = various_images(11)
    source = encoded(images)
    assert source.where(4) == "image 4"
    assert source.file(4) == encode(images[4])
    named = Encoded(source.read, 11, 16, where=lambda index: f"photo {index}")
    # A selection too.
    assert named.select(np.arange(11) % 3 == 1).where(2) == "photo 7"
    assert named.select(np.arange(11) % 3 == 1).file(2) == encode(images[7])
