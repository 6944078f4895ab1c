"""Convolution, max-pooling and zero padding against NumPy."""

import keras
import numpy as np
import pytest
from reference import conv2d

from keras_preact.layers import Conv2D, SymmetricMaxPooling2D, ZeroPad


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (7, 10), (1, 1)])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 7])
def test_outputs_equal_a_convolution_with_the_same_padding_on_both_sides(
    kernel_size, strides, size
):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    layer = Conv2D(4, kernel_size, strides)
    y = layer(x)
    expected = conv2d(x, layer.kernel.numpy(), strides)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [3, 7])
def test_a_strided_convolution_of_an_even_image_is_not_tensorflows_same(kernel_size):
    # The reason for this class: were both alike, keras.layers.Conv2D would do.
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    ours = Conv2D(4, kernel_size, 2)
    same = keras.layers.Conv2D(4, kernel_size, 2, padding="same", use_bias=False)
    same.build(x.shape)
    y = ours(x)
    same.kernel.assign(ours.kernel)
    assert np.abs(y - same(x)).max() > 0.1


def test_a_convolution_of_images_of_unknown_size_has_outputs_of_unknown_size():
    assert Conv2D(4, 3, 2).compute_output_shape((None, None, None, 3)) == (None, None, None, 4)


def test_weights_start_as_an_untruncated_normal_of_the_width_of_he():
    layer = Conv2D(256, 3)
    layer.build((None, 8, 8, 64))
    weights = layer.kernel.numpy().ravel()
    # sqrt(2 / (k * k * out)); fan-in, which is Keras' "he_normal", would be twice as wide.
    std = np.sqrt(2 / (3 * 3 * 256))
    # Four standard errors of a sample standard deviation, a mean and a proportion.
    assert abs(weights.std() / std - 1) < 4 / np.sqrt(2 * weights.size)
    assert abs(weights.mean() / std) < 4 / np.sqrt(weights.size)
    # A truncated normal, as Keras draws by default, has nothing beyond two sigma.
    beyond = 0.0455
    rate = np.mean(np.abs(weights) > 2 * std)
    assert abs(rate - beyond) < 4 * np.sqrt(beyond * (1 - beyond) / weights.size)


def test_there_is_no_bias_unless_it_is_asked_for():
    bare, biased = Conv2D(4, 3), Conv2D(4, 3, use_bias=True, bias_initializer="ones")
    for layer in (bare, biased):
        layer.build((None, 8, 8, 2))
    assert [v.shape for v in bare.weights] == [(3, 3, 2, 4)]
    assert [v.shape for v in biased.weights] == [(3, 3, 2, 4), (4,)]
    np.testing.assert_array_equal(biased.bias, [1, 1, 1, 1])


def test_a_strided_convolution_adds_its_bias_once_to_every_pixel():
    x = np.random.default_rng(0).normal(size=(1, 6, 6, 2)).astype("float32")
    layer = Conv2D(4, 3, 2, use_bias=True, bias_initializer=keras.initializers.Constant(5.0))
    y = layer(x)
    np.testing.assert_allclose(y, conv2d(x, layer.kernel.numpy(), 2) + 5, rtol=1e-4)


@pytest.mark.parametrize("kernel_size", [2, 4, (2, 2)])
def test_an_even_kernel_is_refused(kernel_size):
    with pytest.raises(ValueError, match=r"kernel_size must be odd\. Received: kernel_size=[24]"):
        Conv2D(4, kernel_size)


@pytest.mark.parametrize("strides", [1, 2])
def test_a_convolution_made_from_the_configuration_computes_the_same(strides):
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    layer = Conv2D(4, 3, strides, name="conv")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    y = layer(x)
    copy.build(x.shape)
    copy.set_weights(layer.get_weights())
    assert isinstance(copy, Conv2D)
    np.testing.assert_array_equal(copy(x), y)


def maximum(x, pool_size, strides):
    """Maximum over windows of x padded with minus infinity, (k - 1) / 2 pixels on each side."""
    pad = ((pool_size - 1) // 2,) * 2
    x = np.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (pool_size, pool_size), axis=(1, 2))
    return windows[:, ::strides, ::strides].max(axis=(-2, -1))


@pytest.mark.parametrize("size", [(8, 8), (9, 9), (7, 10), (3, 3), (1, 1)])
@pytest.mark.parametrize(("pool_size", "strides"), [(3, 2), (3, 1), (5, 2)])
def test_pooling_equals_a_maximum_with_minus_infinity_around_the_image(pool_size, strides, size):
    # Negative values only: padding with zeros would win over them at every edge.
    x = -np.random.default_rng(0).uniform(1, 2, size=(2, *size, 3)).astype("float32")
    layer = SymmetricMaxPooling2D(pool_size, strides)
    expected = maximum(x, pool_size, strides)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(layer(x), expected)


def test_pooling_takes_three_pixels_at_stride_two_by_default():
    assert SymmetricMaxPooling2D().compute_output_shape((1, 112, 112, 64)) == (1, 56, 56, 64)
    unknown = (None, None, None, 64)
    assert SymmetricMaxPooling2D().compute_output_shape(unknown) == unknown


def test_pooling_made_from_the_configuration_computes_the_same():
    x = -np.random.default_rng(0).uniform(1, 2, size=(1, 9, 9, 2)).astype("float32")
    layer = SymmetricMaxPooling2D(5, 3, name="pool")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(copy, SymmetricMaxPooling2D)
    np.testing.assert_array_equal(copy(x), maximum(x, 5, 3))


@pytest.mark.parametrize("size", [(4, 4), (5, 7), (1, 1)])
@pytest.mark.parametrize(
    ("strides", "filters", "zeros_before", "zeros_after"),
    [(2, 6, 1, 2), (2, 7, 2, 2), (1, 4, 0, 1), (2, 3, 0, 0), (3, 9, 3, 3)],
)
def test_pixels_are_skipped_and_zero_channels_stand_half_on_each_side(
    size, strides, filters, zeros_before, zeros_after
):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    kept = x[:, ::strides, ::strides, :]
    before, after = (np.zeros((*kept.shape[:3], n)) for n in (zeros_before, zeros_after))
    expected = np.concatenate([before, kept, after], axis=-1)
    layer = ZeroPad(filters, strides)
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(layer(x), expected)
    assert layer.variables == []


def test_zero_padded_images_of_unknown_size_have_outputs_of_unknown_size():
    assert ZeroPad(8, 2).compute_output_shape((None, None, 5, 3)) == (None, None, 3, 8)


def test_zero_padding_never_takes_channels_away():
    with pytest.raises(ValueError, match=r"can only add channels.* from 8 channels to 4"):
        ZeroPad(4)(np.zeros((1, 2, 2, 8)))


def test_zero_padding_made_from_the_configuration_computes_the_same():
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype("float32")
    layer = ZeroPad(8, 2, name="projection")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(copy, ZeroPad)
    assert copy.name == "projection"
    np.testing.assert_array_equal(copy(x), layer(x))
