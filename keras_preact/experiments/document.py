"""The report as a document: sections of texts, tables, commands and pictures, for two formats."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: names it for readers who cannot see it.
        head: of each column.
        rows: of text.
        caption: above; plain text.
        is_long: whether the page folds it away.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    is_long: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        name: of its file, without ".png"; unique in the report.
        alt: describes it to readers who cannot see it.
        caption: text, or `Html` with formulas, which Markdown leaves out.
        png: the file; None for a caption that stands alone.
        on_page_only: whether the Markdown report leaves it out.
    """

    name: str
    alt: str
    caption: str
    png: bytes | None
    on_page_only: bool = False


@dataclasses.dataclass(frozen=True)
class Points:
    """A list of sentences."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Commands:
    """Lines for a shell."""

    lines: Sequence[str]


# A str is a paragraph.
Block = str | Table | Picture | Points | Commands


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Args:
        name: of its anchor, unique in the report.
        title: the heading.
        blocks: in order.
        on_page_only: whether the Markdown report leaves it out.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    on_page_only: bool = False


@dataclasses.dataclass(frozen=True)
class Document:
    """A report.

    Args:
        title: of the page.
        facts: names and values below the title.
        sections: in order.
        summary: lines for the terminal.
    """

    title: str
    facts: dict[str, str]
    sections: Sequence[Section]
    summary: Sequence[str]

    def pictures(self) -> list[Picture]:
        """All pictures that have a file."""
        blocks = [block for section in self.sections for block in section.blocks]
        return [b for b in blocks if isinstance(b, Picture) and b.png is not None]
