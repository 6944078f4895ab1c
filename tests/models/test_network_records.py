"""The records of a network: its architecture and its preprocessing, which `.keras` files keep."""

import keras
import numpy as np
import pytest

import keras_preact
from keras_preact.layers import ActivationOrder, ConstantScaling, Preprocessing
from keras_preact.models import arguments_of, preprocessing_of

GREY = Preprocessing((8, 8, 1), (3.0,), (4.0,), 8 / 7, "bicubic", ("cat", "dog"))
ORDER = ActivationOrder("bn conv", "bn relu conv", "bn relu conv bn")


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "net.keras")
    return keras.models.load_model(tmp_path / "net.keras")


@pytest.mark.parametrize(
    "options",
    [
        {"depth": 8, "unit": "original", "width_multiplier": 0.5},
        {"depth": 8, "unit": ORDER},
        {"depth": 8, "shortcut": ConstantScaling(0.25, 0.75)},
        {"depth": 8, "stochastic_depth_rate": 0.5},
        {"depth": 11, "block": "bottleneck", "layout": "keras"},
    ],
    ids=["order", "own-order", "shortcut", "depth-rate", "layout"],
)
def test_a_loaded_network_can_be_built_again_from_its_arguments(options, tmp_path):
    model = saved_and_loaded(keras_preact.ResNetV2(input_shape=(8, 8, 3), **options), tmp_path)
    again = keras_preact.ResNetV2(input_shape=(8, 8, 3), **arguments_of(model))
    again.set_weights(model.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(images), model(images))
    assert again.get_config()["arguments"] == model.get_config()["arguments"]


def test_preprocessing_is_saved_with_the_weights(tmp_path):
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 1), classes=2)
    assert preprocessing_of(model) is None
    model.preprocessing = GREY
    assert preprocessing_of(saved_and_loaded(model, tmp_path)) == GREY


def test_the_network_of_a_unit_factory_has_no_arguments(tmp_path):
    def unit(filters, strides, first_in_network, name):
        return keras.layers.Conv2D(filters, 3, strides, padding="same", name=name)

    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), unit=unit)
    assert arguments_of(saved_and_loaded(model, tmp_path)) is None


def test_other_models_have_neither():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    assert arguments_of(model) is None and preprocessing_of(model) is None


def test_a_network_trains_and_nests_as_any_keras_model(tmp_path):
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), classes=2)
    model.preprocessing = Preprocessing((8, 8, 3), (1.0,) * 3, (2.0,) * 3)
    outer = keras.Sequential([keras.Input((8, 8, 3)), model, keras.layers.Softmax()])
    outer.compile("sgd", "sparse_categorical_crossentropy")
    outer.fit(np.zeros((2, 8, 8, 3)), np.zeros(2), verbose=0)
    inner = saved_and_loaded(outer, tmp_path).layers[0]
    assert inner.preprocessing == model.preprocessing


def test_keras_makes_no_layer_to_save_or_load_a_unit(tmp_path, monkeypatch):
    model, made = keras_preact.ResNetV2(8, input_shape=(8, 8, 1), classes=2), []
    initialize = keras.layers.Layer.__init__

    def count(layer, **arguments):
        made.append(type(layer))
        initialize(layer, **arguments)

    monkeypatch.setattr(keras.layers.Layer, "__init__", count)
    path = tmp_path / "net.weights.h5"
    model.save_weights(path)
    model.load_weights(path)
    # Once for each kind of object and call.
    assert made.count(keras.layers.Layer) <= 4


def test_a_loaded_network_has_the_weights_and_names_of_the_saved_one(tmp_path):
    model = keras_preact.ResNetV2(11, block="bottleneck", input_shape=(8, 8, 3))
    loaded = saved_and_loaded(model, tmp_path)
    assert [v.path for v in loaded.variables] == [v.path for v in model.variables]
    assert [v.value.name for v in loaded.variables] == [v.value.name for v in model.variables]
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
