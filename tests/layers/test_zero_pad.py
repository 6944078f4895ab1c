"""The parameter-free projection."""

import keras
import numpy as np
import pytest

from keras_preact.layers import ZeroPad


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


def test_images_of_unknown_size_have_outputs_of_unknown_size():
    assert ZeroPad(8, 2).compute_output_shape((None, None, 5, 3)) == (None, None, 3, 8)


def test_channels_are_never_taken_away():
    with pytest.raises(ValueError, match=r"can only add channels.* from 8 channels to 4"):
        ZeroPad(4)(np.zeros((1, 2, 2, 8)))


def test_a_layer_made_from_the_configuration_computes_the_same():
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 3)).astype("float32")
    layer = ZeroPad(8, 2, name="projection")
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert isinstance(copy, ZeroPad)
    assert copy.name == "projection"
    np.testing.assert_array_equal(copy(x), layer(x))
