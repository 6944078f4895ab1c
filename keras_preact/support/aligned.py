"""Tables in messages."""

from collections.abc import Iterable, Sequence
from typing import Any


def aligned(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Lines, indented by two spaces, in which the cells of each column begin at one place.

    Args:
        head: of each column.
        rows: each has as many cells as head.
    """
    rows = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(f"  {line.rstrip()}" for line in lines)
