"""Images on a device, and the indices that choose among them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import Dataset, DatasetInfo, Shard, datasets
from keras_preact.data.dataset import eval_pieces
from keras_preact.data.sources import Encoded, InMemory
from keras_preact.training import TrainConfig
from keras_preact.training.distribution import device_images
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan
from keras_preact.training.distribution.device_images import MOST_STEPS, DeviceImages, Draws

PLAN = make_compute_plan(TrainConfig(), Machine())


def noise(shape, count=20):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, *shape), np.uint8)
    source = InMemory(images, random.integers(0, 10, count).astype(np.int32))
    names = tuple(map(str, range(10)))
    means = (100.0,) * shape[-1]
    info = DatasetInfo("noise", names, shape, count, count, means, means, 1.0)
    return Dataset(info, source, source, "none")


# Of these, only the second takes a multiple of eight bytes.
@pytest.mark.parametrize("shape", [(5, 3, 1), (8, 8, 3), (7, 7, 3)])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_images_come_back_as_they_were_whatever_their_size(shape, jit_compile):
    data = noise(shape)
    images = DeviceImages(data, None, tf.distribute.get_strategy())
    indices = np.int32([3, 19, 0, 3])
    fetch = tf.function(images.train_batch, jit_compile=jit_compile)
    found, labels = fetch(tf.constant(indices), tf.zeros([4, 4], tf.int32))
    np.testing.assert_array_equal(found, data.train_source.images[indices], strict=True)
    np.testing.assert_array_equal(labels, data.train_source.labels[indices], strict=True)
    *evaluated, weights = images.eval_batch(tf.constant(indices), tf.ones([4]))
    np.testing.assert_array_equal(evaluated[0], found)
    np.testing.assert_array_equal(weights, np.ones(4))


@pytest.mark.parametrize(
    ("augmentation", "dtype"),
    [
        ("pad_crop", tf.uint8),
        ("pad_crop", tf.float16),
        ("trivial_augment,random_erasing", tf.float16),
    ],
)
def test_augmented_images_are_those_of_the_batches_that_tf_data_makes(augmentation, dtype):
    data = datasets.load("digits")
    images = DeviceImages(data, augmentation, tf.distribute.get_strategy())
    images._dtype = dtype
    indices, draws = data.train_order(32, 1).batch(5)
    found, labels = images.train_batch(indices.astype(np.int32), draws)
    expected = next(
        data.train(32, seed=1, start_step=5, augmentation=augmentation).as_numpy_iterator()
    )
    np.testing.assert_array_equal(tf.cast(found, tf.uint8), expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_images_stay_on_the_host_if_they_take_a_tenth_of_the_memory(monkeypatch):
    data = noise((8, 8, 3))
    # Training and evaluation images.
    needed = 2 * 20 * 8 * 8 * 3
    for memory_bytes, fit in ((10 * needed, True), (10 * needed - 10, False)):
        monkeypatch.setattr("keras_preact.support.memory.most", lambda b=memory_bytes: (b, ""))
        assert device_images.fits(data, PLAN) is fit
    halves = dataclasses.replace(PLAN, devices=("CPU:0", "CPU:1"))
    monkeypatch.setattr("keras_preact.support.memory.most", lambda: (10 * needed, ""))
    assert not device_images.fits(data, halves)


def test_files_stay_on_the_host():
    encoded = Encoded(lambda index: None, 20, 64)
    files = dataclasses.replace(noise((8, 8, 3)), train_source=encoded)
    assert not device_images.fits(files, PLAN)


def test_draws_are_those_of_the_steps_one_after_the_other():
    order = datasets.load("digits").train_order(100, seed=3)
    # The 15th batch lies across the end of the first epoch, of 1,437 images.
    draws, step = Draws(order, 12), 12
    for steps in (1, 4):
        indices, numbers = draws.take(steps)
        assert indices.shape == (MOST_STEPS, 100) and numbers.shape == (MOST_STEPS, 100, 4)
        for place in range(steps):
            expected = order.batch(step + place)
            np.testing.assert_array_equal(indices[place], expected[0])
            np.testing.assert_array_equal(numbers[place], expected[1])
        assert not indices[steps:].any() and not numbers[steps:].any()
        step += steps


@pytest.mark.parametrize("replicas", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 8, 23, 24])
def test_evaluation_pieces_hold_each_number_once(count, replicas):
    numbers, weights = zip(
        *(eval_pieces(count, 8, Shard(replicas, first, 1)) for first in range(replicas)),
        strict=True,
    )
    held = np.concatenate(numbers)[np.concatenate(weights) == 1]
    assert sorted(held.ravel()) == [*range(count)]
    assert all(each.shape == (-(-count // 8), 8 // replicas) for each in numbers)
