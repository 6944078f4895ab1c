"""The arguments of a residual unit, the names of its layers, its saved configuration."""

import keras
import numpy as np
import pytest

from keras_preact.layers import ActivationOrder, Convolution, ResidualUnit

PYRAMID = ActivationOrder("bn conv", "bn relu conv", "bn relu conv bn")


def images(channels=4):
    return np.random.default_rng(0).normal(size=(2, 6, 7, channels)).astype("float32")


def layer_names(unit):
    """Names of the inner layers that have variables, in the order of creation."""
    return list(dict.fromkeys(v.path.rpartition("/")[0] for v in unit.variables))


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["preact_bn", "conv1", "bn2", "conv2"]),
        ({"block": "bottleneck"}, ["preact_bn", "conv1", "bn2", "conv2", "bn3", "conv3"]),
        ({"order": "original"}, ["conv1", "bn1", "conv2", "bn2"]),
        ({"order": "bn_after_addition"}, ["conv1", "bn1", "conv2", "addition_bn"]),
        # A convolution with BN on both sides.
        ({"order": PYRAMID}, ["preact_bn", "conv1", "bn2", "conv2", "bn2_after"]),
        ({"order": PYRAMID, "block": "single"}, ["preact_bn", "conv1", "bn1"]),
        (
            {"shortcut": "exclusive_gating"},
            ["preact_bn", "conv1", "bn2", "conv2", "shortcut/gate_conv"],
        ),
        ({"shortcut": "convolution"}, ["preact_bn", "conv1", "bn2", "conv2", "shortcut/conv"]),
    ],
)
def test_inner_layers_are_named_after_the_convolution_they_stand_at(arguments, names):
    filters = 1 if arguments.get("block") == "bottleneck" else 4
    unit = ResidualUnit(filters, name="unit", **arguments)
    unit(images())
    assert sorted(layer_names(unit)) == sorted(f"unit/{name}" for name in names)


def test_a_projection_and_its_batch_norm_have_names_of_their_own():
    unit = ResidualUnit(8, 2, order="original", name="unit")
    unit(images())
    assert {"unit/projection_conv", "unit/projection_bn"} <= set(layer_names(unit))


@pytest.mark.parametrize("dimensions", [(4, 1), (8, 1), (8, 2)])
def test_a_convolution_shortcut_takes_the_place_of_the_projection(dimensions):
    unit = ResidualUnit(*dimensions, shortcut=Convolution(), name="unit")
    unit(images())
    on_the_shortcut = [v for v in unit.variables if "conv1" not in v.path and "conv2" not in v.path]
    shapes = [v.shape for v in on_the_shortcut if len(v.shape) == 4]
    assert shapes == [(1, 1, 4, dimensions[0])]


def test_a_plain_unit_has_no_projection():
    unit = ResidualUnit(8, 2, shortcut="none", name="unit")
    unit(images())
    assert layer_names(unit) == [f"unit/{name}" for name in ("preact_bn", "conv1", "bn2", "conv2")]


def test_images_of_unknown_size_have_outputs_of_unknown_size():
    unit = ResidualUnit(2, 2, block="bottleneck")
    assert unit.compute_output_shape((None, None, 7, 4)) == (None, None, 4, 8)


def test_under_mixed_precision_outputs_are_bfloat16_and_variables_float32():
    unit = ResidualUnit(8, 2, dtype="mixed_bfloat16", shortcut="exclusive_gating")
    assert unit(images(), training=True).dtype == "bfloat16"
    assert {v.dtype for v in unit.variables} == {"float32"}


@pytest.mark.parametrize(
    ("argument", "value", "nearest"),
    [
        ("block", "botleneck", "bottleneck"),
        ("order", "orginal", "original"),
        ("shortcut", "identiy", "identity"),
        ("projection", "zeropad", "zero_pad"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(argument, value, nearest):
    with pytest.raises(ValueError, match=f"'{value}'. Did you mean '{nearest}'"):
        ResidualUnit(4, **{argument: value})


@pytest.mark.parametrize(("block", "number"), [("single", 2), ("basic", 0), ("bottleneck", 4)])
def test_only_a_convolution_of_the_unit_can_be_strided(block, number):
    message = rf"strided_convolution of a {block} unit must be from 1 to .*Received: .*={number}"
    with pytest.raises(ValueError, match=message):
        ResidualUnit(4, 2, block=block, strided_convolution=number)


def test_zero_padding_cannot_take_channels_away():
    with pytest.raises(ValueError, match="can only add channels"):
        ResidualUnit(2, projection="zero_pad")(images())


@pytest.mark.parametrize("shortcut", ["identity", "dropout", "convolution", "none"])
@pytest.mark.parametrize("order", ["original", PYRAMID])
def test_a_unit_made_from_its_saved_configuration_computes_the_same(order, shortcut):
    unit = ResidualUnit(
        2,
        2,
        block="bottleneck",
        order=order,
        shortcut=shortcut,
        projection="zero_pad",
        strided_convolution=2,
        first_in_network=True,
        name="unit",
    )
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(unit))
    y = unit(images())
    copy.build(images().shape)
    copy.set_weights(unit.get_weights())
    assert copy.get_config() == unit.get_config()
    np.testing.assert_array_equal(copy(images()), y)
