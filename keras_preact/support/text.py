"""Text for people: aligned tables, and names that strangers chose, made safe to show."""

import re
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

# Letters, with the quotes; longer text is cut in the middle.
_MOST_LETTERS = 200
# Control characters, marks that turn the direction of writing, lone halves of characters, and
# ends of lines and paragraphs.
_UNSAFE = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Those among them that bind the parts of an emoji or of a letter.
_JOINERS = "\u200c\u200d"
_MARKDOWN = re.compile(r"[\\`*<>\[\]|&~$]")


def is_printable(text: str) -> bool:
    """Whether a text is visible as a whole, in one line."""
    return not any(map(_is_unsafe, text))


def printable(text: str) -> str:
    r"""A text in one line that moves no cursor: `"a\nb"` becomes `"a\\nb"`."""
    return "".join(ascii(letter)[1:-1] if _is_unsafe(letter) else letter for letter in text)


def shown(text: str) -> str:
    """Quotes a received text in an error: escaped and at most 200 letters long."""
    short = reprlib.Repr()
    short.maxstring = _MOST_LETTERS
    return short.repr(text)


def bare(text: str) -> str:
    """Shows a received text as `shown` does, without the quotes."""
    return shown(text)[1:-1]


def markdown(text: str) -> str:
    """Escapes a text for Markdown, also for a cell of a table."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text))


def aligned(
    head: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    *,
    numbers_from: int | None = None,
    indent: str = "  ",
) -> str:
    """A line for the head and one for each row, the cells of each column aligned.

    Args:
        head: of each column.
        rows: each has as many cells as head.
        numbers_from: the first column to align on the right; by default none.
        indent: before each line.
    """
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = len(widths) if numbers_from is None else numbers_from
    justified = [
        [
            cell.ljust(width) if column < texts else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    return "\n".join(f"{indent}{'  '.join(cells)}".rstrip() for cells in justified)


def _is_unsafe(letter):
    return letter not in _JOINERS and unicodedata.category(letter) in _UNSAFE
