import numpy as np
import pytest

import keras_preact
from keras_preact.layers import Preprocessing
from keras_preact.models.channels import adapt_channels


@pytest.mark.parametrize(
    ("before", "after"), [(3, 1), (1, 3), (3, 4), (1, 4), (4, 3), (4, 1), (3, 3)]
)
def test_a_grey_image_gives_the_same_output_of_the_stem(before, after):
    grey = np.random.default_rng(0).normal(size=(2, 9, 8, 1)).astype("float32")
    nets = [
        keras_preact.ResNetV2(18, input_shape=(None, None, channels), classes=2)
        for channels in (before, after)
    ]
    old, new = (net.get_layer("stem_conv") for net in nets)
    new.kernel.assign(adapt_channels(np.asarray(old.kernel), after))
    outputs = [
        layer(np.repeat(grey, channels, axis=-1))
        for layer, channels in ((old, before), (new, after))
    ]
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_a_grey_photograph_gives_the_same_output_after_normalization_where_channels_are_added():
    preprocessing = Preprocessing((8, 8, 3), (120.0, 110.0, 100.0), (60.0, 50.0, 70.0))
    kernel = np.random.default_rng(1).normal(size=(1, 1, 3, 5))
    grey = np.random.default_rng(2).integers(0, 256, (7, 1))
    outputs = []
    for channels in (3, 4):
        images = np.repeat(grey, channels, axis=-1)
        inputs = preprocessing.with_channels(channels).normalize(images).numpy()
        outputs.append(inputs @ adapt_channels(kernel, channels)[0, 0])
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_colours_are_summed_for_grey_images_and_repeated_in_turn_for_more_channels():
    kernel = np.arange(1.0, 4.0).reshape(1, 1, 3, 1)
    assert adapt_channels(kernel, 1).ravel().tolist() == [6]
    assert adapt_channels(kernel, 4).ravel().tolist() == [0.5, 2, 3, 0.5]
    assert adapt_channels(kernel[:, :, :1], 4).ravel().tolist() == [0.25] * 4
