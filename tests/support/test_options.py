"""The rules of options, each in one error that names the option and its value."""

import dataclasses
import math
import re

import pytest

from keras_preact.support import options
from keras_preact.support.options import option


@dataclasses.dataclass
class Config:
    colour: str | None = option("group", "help", None, ("red", "green"))
    sizes: tuple[str, ...] = option("group", "help", ("small",), ("small", "large"))
    count: int | None = option("group", "help")
    share: float = option("group", "help", 0.5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"colour": "gren"}, "colour must be one of red, green. Received: colour='gren'. Did you"),
        ({"sizes": ("small", "larg")}, "sizes must be of small, large, separated by commas."),
    ],
)
def test_a_text_is_among_its_choices(given, words):
    options.check_choices(Config())
    with pytest.raises(ValueError, match=re.escape(words)):
        options.check_choices(Config(**given))


def test_none_is_no_wrong_choice():
    options.check_choices(Config(colour=None))


@pytest.mark.parametrize("value", [1, 7, 0.5, None])
def test_a_number_may_lie_in_its_range_or_be_none(value):
    options.check_range(Config(count=value), ["count"], least=0.5, most=7)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "count must be at least 1 and at most 7. Received: count=0"),
        (8, "count must be at least 1 and at most 7. Received: count=8"),
        (0.5, "count must be at least 1 and finite. Received: count=0.5"),
        (math.inf, "count must be at least 1 and finite. Received: count=inf"),
        (math.nan, "count must be at least 1 and finite. Received: count=nan"),
    ],
)
def test_a_number_outside_its_range_is_refused(value, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        options.check_range(Config(count=value), ["count"], least=1, most=7)


@pytest.mark.parametrize("values", [(), ("small", "large", "small")])
def test_a_list_holds_one_or_more_each_once(values):
    options.check_lists(Config(sizes=("small", "large")))
    received = re.escape(",".join(values))
    with pytest.raises(ValueError, match=f"sizes must be one or more, each once.*={received}$"):
        options.check_lists(Config(sizes=values))
