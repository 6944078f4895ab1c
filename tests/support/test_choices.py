"""Choosing by name."""

import pytest

from keras_preact.support.choices import one_of

COLOURS = ("red", "green", "blue")


def test_an_allowed_value_is_returned_as_it_is():
    assert one_of("colour", "green", COLOURS) == "green"


def test_the_error_states_the_allowed_values_what_was_received_and_the_nearest_value():
    with pytest.raises(ValueError) as error:
        one_of("colour", "gren", COLOURS)
    assert str(error.value) == (
        "colour must be one of red, green, blue. Received: colour='gren'. Did you mean 'green'?"
    )


def test_no_value_is_suggested_where_none_is_near():
    with pytest.raises(ValueError, match=r"Received: colour='xyz'\.$"):
        one_of("colour", "xyz", COLOURS)


def test_a_rule_takes_the_place_of_a_long_list():
    with pytest.raises(ValueError, match=r"^colour must be a colour of light\. Received: colour=7"):
        one_of("colour", 7, COLOURS, rule="a colour of light")


def test_any_iterable_of_names_serves_even_one_that_can_be_read_once():
    with pytest.raises(ValueError, match="one of red, green, blue"):
        one_of("colour", "black", iter(COLOURS))
