"""Images as networks want them, against NumPy."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import datasets


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_each_channel_is_normalized_for_itself(dtype):
    mean, std = (1.0, 128.0, 200.0), (2.0, 64.0, 0.5)
    info = dataclasses.replace(
        datasets.load("digits").info, image_shape=(5, 4, 3), mean=mean, std=std
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(dtype)
    normalized = info.normalize(tf.constant(images)).numpy()
    assert normalized.dtype == np.float32
    np.testing.assert_allclose(normalized, (images.astype(np.float64) - mean) / std, rtol=1e-6)


def test_normalized_training_images_have_mean_0_and_standard_deviation_1():
    data = datasets.load("digits")
    images = data.info.normalize(tf.constant(data.train_source.images)).numpy()
    np.testing.assert_allclose([images.mean(), images.std()], [0, 1], atol=1e-3)
