"""The options of a program: the fields of a configuration, which become flags."""

import dataclasses
from typing import Any

# Largest count: 32 bits.
LARGEST = 2**31 - 1


def option(group: str, help_text: str, default: Any = None, choices=None) -> Any:
    """A field of a configuration that becomes a flag: its group, help text and choices."""
    metadata = {"group": group, "help": help_text, "choices": choices and tuple(choices)}
    return dataclasses.field(default=default, metadata=metadata)
