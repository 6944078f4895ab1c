"""Networks are built quickly; they are the same as before, to the bit."""

import hashlib
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact import ResNetV2
from keras_preact.layers.quick_variables import ones, quick_initializer, quick_variables, zeros
from keras_preact.layers.spatial import he_normal

# SHA-256 of names and initial values after seed 7, and of Python's random state, recorded before
# variables were created quickly.
RECORDED = {
    "cifar basic": ("df42815be52a0d5e", {"depth": 20}),
    "cifar bottleneck": ("49eb77b7f4984791", {"depth": 29, "block": "bottleneck"}),
    "gating": (
        "30be358ee3ee75b2",
        {"depth": 20, "unit": "original", "shortcut": "exclusive_gating"},
    ),
    "dropout": (
        "c5bd20e853754c5d",
        {"depth": 20, "shortcut": "dropout", "stochastic_depth_rate": 0.5},
    ),
    "imagenet": ("b7cfba0a20020e42", {"depth": 50}),
    "biases": ("4e5c6e1af788cab6", {"depth": 50, "layout": "keras", "input_shape": (64, 64, 3)}),
    "convolution shortcut": (
        "b567f6fa92d999ae",
        {
            "depth": 8,
            "block": "single",
            "unit": "relu_before_addition",
            "shortcut": "convolution",
        },
    ),
    "wide": (
        "3ca53962f9ee3030",
        {
            "depth": 20,
            "projection": "convolution",
            "width_multiplier": 2.0,
            "unit": "bn_after_addition",
        },
    ),
}


@pytest.mark.parametrize("case", RECORDED)
def test_initial_weights_and_names_are_those_of_earlier_versions(case):
    recorded, arguments = RECORDED[case]
    keras.utils.set_random_seed(7)
    digest = hashlib.sha256()
    for variable in ResNetV2(**arguments).variables:
        digest.update(variable.path.encode())
        digest.update(variable.value.name.encode())
        digest.update(str(variable.dtype).encode())
        digest.update(variable.numpy().tobytes())
    digest.update(repr(random.getstate()).encode())
    assert digest.hexdigest()[:16] == recorded


@pytest.mark.parametrize("shape", [(1, 1, 64, 16), (3, 3, 16, 16), (7, 7, 3, 64), (5, 7, 3, 2)])
@pytest.mark.parametrize("seed", [1, 987654321, 2**31 - 2, 2**40 + 3])
def test_kernels_are_those_of_keras(shape, seed):
    initializer = he_normal()
    initializer.seed = seed
    quick = quick_initializer(initializer)
    assert quick is not initializer
    expected = initializer(shape, "float32").numpy()
    assert quick(shape, "float32").numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "initializer",
    [
        "zeros",
        None,
        keras.initializers.HeNormal(seed=1),
        keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform", seed=1),
        keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal", seed=keras.random.SeedGenerator(1)
        ),
    ],
    ids=["name", "none", "subclass", "other", "generator"],
)
def test_other_initializers_stay_as_they_are(initializer):
    assert quick_initializer(initializer) is initializer


def test_kernels_of_other_types_are_those_of_keras():
    initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal", seed=3)
    value = quick_initializer(initializer)((3, 3, 4, 4), "float64")
    assert value.dtype == "float64"
    np.testing.assert_array_equal(value, initializer((3, 3, 4, 4), "float64"))


def test_constants_are_of_the_type_that_is_asked_for():
    assert ones((3,), "float64").dtype == "float64"
    np.testing.assert_array_equal(ones((3,), "float32"), [1, 1, 1])
    np.testing.assert_array_equal(zeros((2,), "float32"), [0, 0])


def test_variables_have_the_names_of_their_scopes():
    with quick_variables(), tf.name_scope("outer"), tf.name_scope("inner"):
        assert tf.Variable(1.0, name="gamma").name == "outer/inner/gamma:0"
        assert tf.Variable(1.0).name == "outer/inner/Variable:0"
    with quick_variables():
        assert tf.Variable(1.0, name="gamma").name == "gamma:0"


def test_variables_of_replicas_are_named_as_tensorflow_names_them():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])

    def names():
        with strategy.scope():
            variable = tf.Variable(1.0, name="gamma")
        return [variable.name, *(part.name for part in variable.values)]

    expected = names()
    with quick_variables():
        assert names() == expected


def test_variables_in_a_function_are_created_as_ever():
    made = []

    @tf.function
    def function():
        if not made:
            made.append(tf.Variable(2.0, name="gamma"))
        return made[0] + 1.0

    with quick_variables():
        assert function() == 3.0
    assert made[0].name == "gamma:0"
