"""A study as one self-contained HTML file."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from keras_preact.studies.formulas import Equation, numbered, symbols
from keras_preact.support import page
from keras_preact.support.page import Section

# More figures have a table of contents.
_MOST_WITHOUT_CONTENTS = 3
_STYLE = """
svg { display: block; width: 100%; max-width: 44rem; height: auto; }
.equation { overflow-x: auto; overflow-y: hidden; padding: 0.3rem 0; }
.equation math { font-size: 1.2em; }
.equation span { margin-left: 2rem; }
msub > :last-child { position: relative; top: 0.12em; }
.symbols { max-width: 45rem; padding-left: 1.2rem; }
"""


@dataclasses.dataclass(frozen=True)
class Figure:
    """A picture of a study, or where that would be a level line, a sentence in its place.

    Args:
        name: of its file, without ".png"; unique in the study.
        title: the heading above.
        caption: the findings, in a few sentences; text, or `Html` with formulas.
        png: the file; None for a caption that stands alone.
        alt: describes the picture to readers who cannot see it.
        equations: shown below the heading.
    """

    name: str
    title: str
    caption: str
    png: bytes | None = None
    alt: str = ""
    equations: Sequence[Equation] = ()

    def of(self, network: str, prefix: str = "") -> "Figure":
        """The same under the name of a network, if it has a prefix among several."""
        title = f"{self.title}: {network}" if prefix else self.title
        named = {"name": prefix + self.name, "title": title, "alt": f"{self.alt}: {network}"}
        return dataclasses.replace(self, **named)


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: its title, the names of its columns, its cells, and a caption as of a figure."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str


def html(
    title: str,
    facts: Mapping[str, str],
    figures: Sequence[Figure],
    tables: Sequence[Table] = (),
) -> bytes:
    """A page with facts, symbols, contents, figures and tables, in this order, as UTF-8.

    Args:
        title: of the page.
        facts: names and values, such as the network and the data.
        figures: with unique names. Where one shows an equation, the symbols are explained.
        tables: below the figures.
    """
    explained = any(figure.equations for figure in figures)
    sections = [Section("symbols", "Symbols", [symbols()], is_listed=False)] if explained else []
    before = len(sections)
    sections += [Section(figure.name, figure.title, [*_figure(figure)]) for figure in figures]
    for number, table in enumerate(tables, 1):
        body = [*page.table(table.title, table.head, table.rows, table.caption)]
        sections.append(Section(f"table-{number}", table.title, body))
    listed = before if len(figures) > _MOST_WITHOUT_CONTENTS else None
    return page.document(title, facts, sections, contents_after=listed, style=_STYLE)


def _figure(figure: Figure) -> Iterable[str]:
    yield from map(numbered, figure.equations)
    if figure.png is None:
        yield f"<p>{page.text(figure.caption)}</p>"
        return
    yield from page.picture(figure.png, figure.alt, figure.caption, figure.title)
