"""The table of activation orders."""

import dataclasses

import keras
import pytest

from keras_preact.layers import ORDERS, ActivationOrder
from keras_preact.layers import activation_order as activation_orders

# Implied by figure 4: the operations before the first convolution, which follow the last unit
# once more; those after the stem's convolution; and those of a projection.
SURROUNDINGS = {
    "original": ("", "bn relu", "conv bn"),
    "bn_after_addition": ("", "bn relu", "conv"),
    "relu_before_addition": ("", "bn relu", "conv bn"),
    "relu_only_preactivation": ("relu", "bn", "conv bn"),
    "full_preactivation": ("bn relu", "", "conv"),
}
PYRAMID = {"first": "bn conv", "middle": "bn relu conv", "last": "bn relu conv bn"}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_preactivation_stem_and_projection_follow_from_the_row(name):
    order = ORDERS[name]
    derived = (order.preactivation, order.stem_completion, order.projection)
    assert tuple(" ".join(operations) for operations in derived) == SURROUNDINGS[name]


def test_the_table_has_the_five_published_orders_and_no_other():
    assert set(ORDERS) == set(SURROUNDINGS)


def test_a_unit_uses_the_sequences_that_its_number_of_convolutions_needs():
    order = ActivationOrder(**PYRAMID)
    assert order.sequences(2) == [["bn", "conv"], ["bn", "relu", "conv", "bn"]]
    assert order.sequences(3) == [
        ["bn", "conv"],
        ["bn", "relu", "conv"],
        ["bn", "relu", "conv", "bn"],
    ]


def test_the_convolution_of_a_one_layer_unit_is_both_the_first_and_the_last():
    # `first` gives what stands before it; what stands before it in `last` is left out.
    assert ActivationOrder(**PYRAMID).sequences(1) == [["bn", "conv", "bn"]]
    assert ActivationOrder("relu conv bn", "conv", "bn conv relu").sequences(1) == [
        ["relu", "conv", "relu"]
    ]


@pytest.mark.parametrize(
    ("field", "value", "convolutions"),
    [
        ("first", "bn relu", 1),
        ("middle", "conv conv", 1),
        ("last", "conv batchnorm", 1),
        ("after_addition", "conv relu", 0),
        ("after_addition", "ReLU", 0),
    ],
)
def test_a_sequence_that_breaks_the_rule_is_refused(field, value, convolutions):
    with pytest.raises(ValueError) as error:
        ActivationOrder(**{**PYRAMID, field: value})
    assert str(error.value) == (
        f"{field} must be made of the words conv, bn, relu, with {convolutions} 'conv'. "
        f"Received: {field}={value!r}"
    )


def test_blanks_separate_words_however_many_they_are():
    order = ActivationOrder("  bn   relu conv", "conv", "conv")
    assert order.preactivation == ["bn", "relu"]


def test_an_order_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ORDERS["original"].first = "conv"


def test_get_takes_a_name_an_order_or_a_saved_configuration():
    order = ActivationOrder(**PYRAMID, after_addition="relu")
    assert activation_orders.get("original") is ORDERS["original"]
    assert activation_orders.get(order) is order
    saved = keras.saving.serialize_keras_object(order)
    assert saved["config"] == {**PYRAMID, "after_addition": "relu"}
    assert activation_orders.get(saved) == order


def test_an_unknown_name_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"^unit must be one of original, .*") as error:
        activation_orders.get("full_preactivaton")
    assert "Did you mean 'full_preactivation'?" in str(error.value)
