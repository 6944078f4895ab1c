"""The options of a program: the fields of a configuration, which become flags."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

from keras_preact.support.choices import one_of
from keras_preact.support.text import shown

# Largest count: 32 bits.
LARGEST = 2**31 - 1


def option(
    group: str, help_text: str, default: Any = None, choices=None, own: str | None = None
) -> Any:
    """A field of a configuration that becomes a flag.

    Args:
        group: under which --help lists it.
        help_text: for --help.
        default: its value where it is not given.
        choices: the texts that it may be.
        own: the form of code that may stand in their place, known by its colon.
    """
    metadata = {"group": group, "help": help_text, "choices": choices and tuple(choices)}
    if own:
        metadata["own"] = own
    return dataclasses.field(default=default, metadata=metadata)


def check_choices(config: Any) -> None:
    """Raises ValueError if a text, or one in a tuple, is not among the choices of its option."""
    for field in dataclasses.fields(config):
        choices, value = field.metadata["choices"], getattr(config, field.name)
        if not choices or value is None:
            continue
        is_list, own = isinstance(value, tuple), field.metadata.get("own")
        rule = f"{'' if is_list else 'one '}of {', '.join(choices)}"
        rule += f", or {own}" if own else ""
        for each in value if is_list else (value,):
            if not (own and ":" in each):
                one_of(field.name, each, choices, rule + ", separated by commas" * is_list)


def check_range(config: Any, names: Iterable[str], least: float, most: int = LARGEST) -> None:
    """Raises ValueError if a number lies outside a range; None is allowed.

    Args:
        config: a dataclass of `option`s.
        names: of the options.
        least: the smallest number allowed.
        most: the largest integer allowed; fractions must be finite.
    """
    for name in names:
        value = getattr(config, name)
        is_count = isinstance(value, int)
        if value is None or (value >= least and (value <= most if is_count else value < math.inf)):
            continue
        rule = f"at most {most}" if is_count else "finite"
        raise ValueError(
            f"{name} must be at least {least} and {rule}. Received: {name}={shown(value)}"
        )


def check_lists(config: Any) -> None:
    """Raises ValueError if a tuple is empty or has a value twice."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple) and (not value or len(set(value)) < len(value)):
            received = ",".join(map(str, value))
            raise ValueError(
                f"{field.name} must be one or more, each once. Received: {field.name}={received}"
            )
