"""The report in Markdown, with its pictures as files in a folder beside it."""

import re
from collections.abc import Iterable

from keras_preact.experiments.document import (
    Block,
    Commands,
    Document,
    Picture,
    Points,
    Section,
    Table,
)
from keras_preact.support.page import Html
from keras_preact.support.text import markdown, printable

FIGURES = "figures"
_MARKS_OF_LINES = re.compile(r"^(\s*)([#+=-]|\d+[.)])")


def write(document: Document) -> bytes:
    """Returns the report as Markdown, UTF-8."""
    lines = [f"# {_line(document.title)}", ""]
    lines += [f"- **{_line(name)}**: {markdown(value)}" for name, value in document.facts.items()]
    for section in document.sections:
        if not section.on_page_only:
            lines += _section(section)
    return "\n".join([*lines, ""]).encode("utf-8", "backslashreplace")


def _section(section: Section) -> Iterable[str]:
    yield from ("", f"## {_line(section.title)}")
    for block in section.blocks:
        yield from _block(block)


def _block(block: Block) -> Iterable[str]:
    match block:
        case Table():
            yield from _table(block)
        case Picture(on_page_only=False):
            yield from _picture(block)
        case Points():
            yield from ("", *(f"- {markdown(text)}" for text in block.texts))
        case Commands():
            lines = [printable(line) for line in block.lines]
            # A fence longer than any within.
            longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
            fence = "`" * max(3, longest + 1)
            yield from ("", f"{fence}shell", *lines, fence)
        case str():
            yield from ("", _line(block))


def _table(table: Table) -> Iterable[str]:
    if table.is_long:
        # GitHub reads Markdown between these where empty lines are around it.
        title = f"{markdown(table.title)} ({len(table.rows):,} lines)"
        yield from ("", f"<details><summary>{title}</summary>")
    if table.caption:
        yield from ("", _line(table.caption))
    yield from ("", _cells(map(markdown, table.head)), _cells(["---"] * len(table.head)))
    for row in table.rows:
        yield _cells(map(markdown, row))
    if table.is_long:
        yield from ("", "</details>")


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _picture(picture: Picture) -> Iterable[str]:
    if picture.png is not None:
        yield from ("", f"![{markdown(picture.alt)}]({FIGURES}/{picture.name}.png)")
    if picture.caption and not isinstance(picture.caption, Html):
        yield from ("", _line(picture.caption))


def _line(text: str) -> str:
    """Escapes a text that begins a line, where some marks begin a list or a heading."""
    return _MARKS_OF_LINES.sub(r"\1\\\2", markdown(text))
