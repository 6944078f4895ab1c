"""Results as CSV: a line for each network and unit."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np


def columns(*results: Any) -> dict[str, np.ndarray]:
    """The arrays of results that have a number for each unit, by name.

    Args:
        results: dataclasses such as `Forward` and `Backward` of one network; the arrays of
            one in another, such as `Forward.shortcut`, are named as in shortcut_mean.
    """
    named = {}
    for result in results:
        for field in dataclasses.fields(result):
            value = getattr(result, field.name)
            if dataclasses.is_dataclass(value):
                named |= {f"{field.name}_{name}": v for name, v in columns(value).items()}
            elif isinstance(value, np.ndarray) and value.ndim == 1:
                named[field.name] = value
    return named


# What is the same in all lines; what each line is about; the columns.
_Part = tuple[Mapping[str, Any], Sequence[str], Mapping[str, np.ndarray]]


def csv_bytes(parts: Iterable[_Part], about: str = "unit") -> bytes:
    """A CSV of parts of one kind, one below the other.

    Args:
        parts: of each what is the same in all its lines, what each line is about, and the
            columns.
        about: the name of the column that says what a line is about.
    """
    text, writer = io.StringIO(), None
    for common, lines, named in parts:
        if writer is None:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow([*common, about, *named])
        for place, line in enumerate(lines):
            cells = (_cell(column[place]) for column in named.values())
            writer.writerow([*common.values(), line, *cells])
    return text.getvalue().encode()


def _cell(value):
    return value if isinstance(value, np.integer | int) else f"{float(value):.8g}"
