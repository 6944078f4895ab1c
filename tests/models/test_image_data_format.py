"""A global channels_first, as a keras.json may set it, changes nothing of these networks."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from variants import ORDERS, PYRAMID, SHORTCUTS

from keras_preact import PlainNet, ResNet, ResNetV2
from keras_preact.analysis import backward, forward
from keras_preact.layers import Convolution, ResidualUnit
from keras_preact.models.looped_network import LoopedNetwork, stacked

FORMATS = ("channels_last", "channels_first")


@pytest.fixture(autouse=True)
def restored_format():
    yield
    keras.config.set_image_data_format("channels_last")


def under(data_format, function, *arguments, **options):
    """Calls a function under another global format of Keras."""
    keras.config.set_image_data_format(data_format)
    try:
        keras.utils.set_random_seed(0)
        return function(*arguments, **options)
    finally:
        keras.config.set_image_data_format("channels_last")


def step(model):
    """Output and gradients of a training step, by name, and the output of inference."""
    height, width, channels = model.input_shape[1:]
    # Sizes that cannot be mistaken for channels.
    shape = (2, height or 11, width or 13, channels)
    images = np.random.default_rng(0).normal(size=shape).astype("float32")
    with tf.GradientTape() as tape:
        y = model(images, training=True)
        loss = tf.reduce_sum(y * tf.sin(y))
    gradients = tape.gradient(loss, [v.value for v in model.trainable_variables])
    paths = [v.path for v in model.trainable_variables]
    return {
        "training": y,
        **dict(zip(paths, gradients, strict=True)),
        "inference": model(images, training=False),
    }


def shapes(model):
    return {v.path: tuple(v.shape) for v in model.variables}


def build_and_step(build, options):
    model = build(**options)
    return shapes(model), step(model)


def assert_same(build, **options):
    options = {"input_shape": (10, 9, 3), "classes": 5, **options}
    expected_shapes, expected = under("channels_last", build_and_step, build, options)
    received_shapes, received = under("channels_first", build_and_step, build, options)
    assert received_shapes == expected_shapes
    assert expected.keys() == received.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)


BLOCKS = [(5, "single"), (8, "basic"), (11, "bottleneck")]


@pytest.mark.parametrize(("depth", "block"), BLOCKS)
@pytest.mark.parametrize("unit", (*ORDERS, PYRAMID))
def test_orders_and_blocks_are_the_same_under_both_formats(unit, depth, block):
    assert_same(ResNetV2, depth=depth, block=block, unit=unit)


@pytest.mark.parametrize("shortcut", (*SHORTCUTS, "none", Convolution(batch_norm=True)))
def test_shortcuts_are_the_same_under_both_formats(shortcut):
    assert_same(ResNetV2, depth=8, shortcut=shortcut)


@pytest.mark.parametrize("projection", ["convolution", "zero_pad"])
@pytest.mark.parametrize("depth", [8, 11, 18])
def test_projections_and_stems_are_the_same_under_both_formats(depth, projection):
    assert_same(ResNetV2, depth=depth, projection=projection, width_multiplier=0.25)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (ResNetV2, {"include_top": False}),
        (ResNetV2, {"include_top": False, "pooling": "avg"}),
        (ResNetV2, {"include_top": False, "pooling": "max"}),
        (ResNetV2, {"input_shape": (None, None, 3)}),
        (ResNetV2, {"input_shape": (None, None, 3), "depth": 18, "width_multiplier": 0.25}),
        (ResNetV2, {"classifier_activation": "softmax"}),
        (ResNetV2, {"stochastic_depth_rate": 0.5}),
        (ResNet, {}),
        (PlainNet, {}),
    ],
    ids=lambda value: value.__name__ if callable(value) else str(value),
)
def test_every_kind_of_network_is_the_same_under_both_formats(build, options):
    assert_same(build, **{"depth": 8, **options})


def test_a_network_with_loops_is_the_same_under_both_formats():
    expected, received = (under(data_format, _looped) for data_format in FORMATS)
    np.testing.assert_array_equal(received, expected)


def _looped():
    model = ResNetV2(20, input_shape=(10, 9, 3))
    function = LoopedNetwork(model)
    values = stacked({v.path: v.value for v in model.variables}, function.stacks)
    images = np.random.default_rng(0).normal(size=(2, 10, 9, 3)).astype("float32")
    return tf.function(functools.partial(function, training=True))(values, images)[0]


def test_signal_and_gradient_are_measured_the_same_under_both_formats():
    images = np.random.default_rng(0).normal(size=(4, 10, 9, 3)).astype("float32")
    labels = np.arange(4)

    def measure():
        model = ResNetV2(14, input_shape=(10, 9, 3), shortcut="exclusive_gating")
        results = forward(model, images), backward(model, images, labels)
        return [dataclasses.asdict(result) for result in results]

    expected, received = (tf.nest.flatten(under(f, measure)) for f in FORMATS)
    assert len(expected) > 30
    for value, other in zip(expected, received, strict=True):
        np.testing.assert_array_equal(other, value)


@keras.saving.register_keras_serializable(package="test_image_data_format")
class Squeezed(keras.layers.Layer):
    """A unit of Keras' own layers, in the given format or the global one."""

    def __init__(self, filters, strides, first_in_network, data_format=None, **kwargs):
        super().__init__(**kwargs)
        self.arguments = (filters, strides, first_in_network, data_format)
        options = {"data_format": data_format}
        self.conv = keras.layers.Conv2D(filters, 3, strides, padding="same", name="conv", **options)
        self.pool = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool", **options)
        self.gate = keras.layers.Dense(filters, activation="sigmoid", name="gate")

    def build(self, input_shape):
        self.conv.build(input_shape)
        self.gate.build((None, 1, 1, self.arguments[0]))

    def call(self, x):
        y = self.conv(x)
        return y * self.gate(self.pool(y))

    def get_config(self):
        names = ("filters", "strides", "first_in_network", "data_format")
        return {**super().get_config(), **dict(zip(names, self.arguments, strict=True))}


def squeezed(**arguments):
    return Squeezed(data_format="channels_last", **arguments)


@pytest.mark.parametrize("factory", [ResidualUnit, squeezed])
def test_units_of_a_factory_that_say_their_format_are_the_same_under_both(factory):
    assert_same(ResNetV2, depth=8, unit=factory)


def test_units_of_a_factory_that_follow_the_global_format_are_refused_and_named():
    with pytest.raises(ValueError, match=r"data_format='channels_last'.*Conv2D.*stage1_unit1"):
        under("channels_first", ResNetV2, 8, unit=Squeezed, input_shape=(8, 8, 3))
    under("channels_last", ResNetV2, 8, unit=Squeezed, input_shape=(8, 8, 3))


@pytest.mark.parametrize("saved_under", FORMATS)
@pytest.mark.parametrize(
    "options",
    [
        {"depth": 8},
        {"depth": 11, "include_top": False, "pooling": "max"},
        {"depth": 18, "width_multiplier": 0.25},
        {"depth": 8, "unit": squeezed},
    ],
    ids=["cifar", "pooled", "imagenet", "factory"],
)
def test_a_file_saved_under_one_format_loads_under_the_other(saved_under, options, tmp_path):
    (loaded_under,) = set(FORMATS) - {saved_under}
    path = tmp_path / "net.keras"

    def save():
        model = ResNetV2(input_shape=(10, 9, 3), **options)
        model.save(path)
        return shapes(model), step(model)

    expected_shapes, expected = under(saved_under, save)
    loaded_shapes, received = under(
        loaded_under, lambda: build_and_step(keras.models.load_model, {"filepath": path})
    )
    assert loaded_shapes == expected_shapes
    for name, value in expected.items():
        np.testing.assert_array_equal(received[name], value, err_msg=name)
