"""The report as one self-contained HTML page."""

from collections.abc import Iterable
from html import escape

from keras_preact.experiments.document import Block, Commands, Document, Picture, Points, Table
from keras_preact.support import page
from keras_preact.support.text import printable

_STYLE = """
pre { overflow-x: auto; padding: 0.6rem; background: #8882; font-size: 0.85rem; }
summary { cursor: pointer; margin: 1rem 0; }
td:not(:first-child) { white-space: nowrap; }
td:first-child { min-width: 11rem; }
td:last-child { white-space: normal; min-width: 11rem; }
caption { max-width: min(45rem, 100vw - 2rem); }
section > ul { max-width: 45rem; padding-left: 1.2rem; }
math { font-size: 1.05em; }
"""
# Sections before the contents: those that a reader must not miss.
_FIRST = 1


def write(document: Document) -> bytes:
    """Returns the report as a page, UTF-8."""
    sections = [
        page.Section(
            section.name,
            printable(section.title),
            [line for block in section.blocks for line in _block(block)],
        )
        for section in document.sections
    ]
    facts = {printable(name): printable(value) for name, value in document.facts.items()}
    title = printable(document.title)
    return page.document(title, facts, sections, contents_after=_FIRST, style=_STYLE)


def _block(block: Block) -> Iterable[str]:
    match block:
        case Table():
            yield from _table(block)
        case Picture():
            yield from _picture(block)
        case Points():
            items = "".join(f"<li>{escape(printable(text))}</li>" for text in block.texts)
            yield f"<ul>{items}</ul>"
        case Commands():
            lines = escape("\n".join(map(printable, block.lines)))
            yield '<pre role="region" tabindex="0" aria-label="Commands">'
            yield f"<code>{lines}</code></pre>"
        case _:
            yield f"<p>{_text(block)}</p>"


def _table(table: Table) -> Iterable[str]:
    rows = [[printable(cell) for cell in row] for row in table.rows]
    head = [printable(name) for name in table.head]
    lines = page.table(printable(table.title), head, rows, printable(table.caption))
    if not table.is_long:
        yield from lines
        return
    summary = f"{escape(printable(table.title))} ({len(rows):,} lines)"
    yield from (f"<details><summary>{summary}</summary>", *lines, "</details>")


def _picture(picture: Picture) -> Iterable[str]:
    if picture.png is None:
        yield f"<p>{_text(picture.caption)}</p>"
        return
    yield from page.picture(picture.png, printable(picture.alt), picture.caption)


def _text(text):
    return text if isinstance(text, page.Html) else escape(printable(text))
