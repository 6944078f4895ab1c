"""Numbers in the words of a caption."""

import numpy as np
import pytest

from keras_preact.studies.formulas import with_formulas
from keras_preact.studies.wording import are_alike, between, highest, number, percent


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1, "1"),
        (0.0349, "0.0349"),
        (1234.5, "1,230"),
        (99_949, "99,900"),
        (99_999, "$10^{5}$"),
        (-0.25, "\N{MINUS SIGN}0.25"),
        (3.21e-9, r"$3.21 \times 10^{-9}$"),
        (-2e30, r"$-2 \times 10^{30}$"),
        (np.inf, "infinite"),
        (np.nan, "undefined"),
    ],
)
def test_a_number_has_three_digits_and_a_power_of_10_where_it_needs_one(value, text):
    assert number(value) == text
    assert with_formulas(text)


def test_a_percentage_has_three_digits():
    assert [percent(share) for share in (0, 0.1234, 1)] == ["0 %", "12.3 %", "100 %"]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([2, 5, 3], "between 2 (a) and 5 (b$)"),
        ([2, 2.0001, 2], "2"),
        ([np.nan, 5, 3], "between 3 (c) and 5 (b$) (and not finite in 1 of 3)"),
        ([np.inf, 5, np.nan], "5 (and not finite in 2 of 3)"),
        ([np.nan] * 3, "not finite"),
    ],
)
def test_values_are_summed_up_by_their_extremes(values, text):
    assert between(["a", "b$", "c"], values) == text.replace("$", r"\$")


@pytest.mark.parametrize(
    ("values", "text"),
    [([2, 5], "5 (b)"), ([0, 0], "0"), ([np.inf, 3], "3 (b)"), ([np.nan, np.inf], "not finite")],
)
def test_the_highest_value_is_named(values, text):
    assert highest(["a", "b"], values) == text


@pytest.mark.parametrize(
    ("values", "alike"),
    [
        ([1, 1 + 1e-7, 1], True),
        ([0, 0], True),
        ([3], True),
        ([], True),
        ([1, 1.001], False),
        ([0, 1e-12], False),
        ([1, np.nan], False),
        ([np.inf, np.inf], False),
    ],
)
def test_values_are_alike_where_they_differ_by_rounding(values, alike):
    assert are_alike(np.array(values)) is alike
