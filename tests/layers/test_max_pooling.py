"""The max-pooling of the ImageNet stem against a NumPy maximum."""

import keras
import numpy as np
import pytest

from keras_preact.layers.max_pooling import SymmetricMaxPooling2D


def maximum(x, pool_size, strides):
    """Maximum over windows of x padded with minus infinity, (k - 1) / 2 pixels on each side."""
    pad = ((pool_size - 1) // 2,) * 2
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (pool_size, pool_size), axis=(1, 2))
    return windows[:, ::strides, ::strides].max(axis=(-2, -1))


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (7, 10), (3, 3), (1, 1)])
@pytest.mark.parametrize(("pool_size", "strides"), [(3, 2), (3, 1), (5, 2)])
def test_outputs_equal_a_maximum_with_minus_infinity_around_the_image(pool_size, strides, size):
    # Negative values only: padding with zeros would win over them at every edge.
    x = -np.random.default_rng(0).uniform(1, 2, size=(2, *size, 3)).astype("float32")
    layer = SymmetricMaxPooling2D(pool_size, strides)
    expected = maximum(x, pool_size, strides)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(layer(x), expected)


def test_the_default_is_the_stems_three_pixels_at_stride_two():
    assert SymmetricMaxPooling2D().compute_output_shape((1, 112, 112, 64)) == (1, 56, 56, 64)
    unknown = (None, None, None, 64)
    assert SymmetricMaxPooling2D().compute_output_shape(unknown) == unknown


def test_a_layer_made_from_the_configuration_computes_the_same():
    x = -np.random.default_rng(0).uniform(1, 2, size=(1, 9, 9, 2)).astype("float32")
    layer = SymmetricMaxPooling2D(5, 3, name="pool")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(copy, SymmetricMaxPooling2D)
    np.testing.assert_array_equal(copy(x), maximum(x, 5, 3))
