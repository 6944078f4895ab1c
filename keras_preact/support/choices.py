"""Chooses by name; the error suggests the nearest one."""

import difflib
from collections.abc import Iterable

from keras_preact.support.text import shown


def one_of(argument: str, value: str, allowed: Iterable[str], rule: str | None = None) -> str:
    """Returns value, or raises a ValueError that names the nearest allowed value.

    Args:
        argument: the name of the argument or flag.
        value: what was received.
        allowed: the values to choose from.
        rule: the rule in words; default: "one of" and the allowed values.
    """
    allowed = list(allowed)
    if value in allowed:
        return value
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    rule = rule or f"one of {', '.join(allowed)}"
    raise ValueError(f"{argument} must be {rule}. Received: {argument}={shown(value)}.{hint}")
