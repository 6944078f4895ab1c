"""TF32: off where numbers are compared, and on again afterwards."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact import ResNetV2, analysis
from keras_preact.exporting.checks import parity
from keras_preact.support import tf32


@pytest.fixture(autouse=True)
def switched_on():
    """As TensorFlow has it; the other tests run without."""
    assert not tf32.is_on({})
    tf.config.experimental.enable_tensor_float_32_execution(True)
    yield
    assert tf32.is_on({})
    tf.config.experimental.enable_tensor_float_32_execution(False)


def test_it_is_off_within_the_context_and_then_as_before():
    with tf32.off():
        with tf32.off():
            assert not tf32.is_on({})
        assert not tf32.is_on({})
    assert tf32.is_on({})
    with pytest.raises(KeyError), tf32.off():
        raise KeyError


@pytest.mark.parametrize(("value", "is_on"), [("0", False), ("1", True), ("", True)])
def test_nvidias_libraries_can_be_told_to_leave_it_off(value, is_on):
    assert tf32.is_on({"NVIDIA_TF32_OVERRIDE": value}) is is_on


@pytest.mark.parametrize("name", ["forward", "backward", "lesion", "path_lengths"])
def test_analyses_compute_without_it(name):
    seen = []

    class Spy(keras.layers.Layer):
        def call(self, x):
            seen.append(tf32.is_on({}))
            return x

    model = ResNetV2(8, input_shape=(8, 8, 3), classes=2)
    model = keras.Model(model.inputs, Spy()(model.outputs[0]))
    images, labels = np.zeros((4, 8, 8, 3), "float32"), np.array([0, 1, 0, 1])
    seen.clear()
    if name == "forward":
        # Nothing behind the last unit is called: the images tell.
        class Images:
            def __array__(self, *arguments, **options):
                seen.append(tf32.is_on({}))
                return images

        analysis.forward(model, Images())
    elif name == "lesion":
        analysis.lesion(model, [(images, labels, np.ones(4))])
    else:
        getattr(analysis, name)(model, images, labels)
    assert seen and not any(seen)


def test_exports_are_compared_without_it():
    seen = []

    def predict(images):
        seen.append(tf32.is_on({}))
        return np.full((len(images), 2), 0.5)

    batches = [(np.zeros((3, 8, 8, 3)), np.zeros(3, int), np.ones(3))]
    parity.compare({"keras": predict, "file": predict}, "keras", batches, str)
    assert seen == [False, False]
