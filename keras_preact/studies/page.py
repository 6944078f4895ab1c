"""A study as one self-contained HTML file."""

import base64
import dataclasses
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from keras_preact.studies.formulas import Equation, Html, numbered, symbols

# More figures have a table of contents.
_MOST_WITHOUT_CONTENTS = 3
# Browsers load and run nothing, whatever the texts hold.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 70rem; margin: 0 auto; padding: 1rem;
  background: #fff; color: #1a1a1a; overflow-wrap: anywhere; }
h1, h2 { line-height: 1.2; }
h2 { margin-top: 2.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dt { font-weight: bold; }
dd { margin: 0; }
figure { margin: 1rem 0; }
svg { display: block; width: 100%; max-width: 44rem; height: auto; }
.equation { overflow-x: auto; overflow-y: hidden; padding: 0.3rem 0; }
.equation math { font-size: 1.2em; }
.equation span { margin-left: 2rem; }
msub > :last-child { position: relative; top: 0.12em; }
.symbols, section > p { max-width: 45rem; }
.symbols { padding-left: 1.2rem; }
img { max-width: 100%; height: auto; background: #fff; }
figcaption, caption { text-align: left; max-width: 45rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 0.5rem; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; border-bottom: 1px solid #8888; }
@media (max-width: 40rem) {
  .wide svg { display: block; width: 100%; max-width: 44rem; height: auto; }
.equation { overflow-x: auto; overflow-y: hidden; padding: 0.3rem 0; }
.equation math { font-size: 1.2em; }
.equation span { margin-left: 2rem; }
msub > :last-child { position: relative; top: 0.12em; }
.symbols, section > p { max-width: 45rem; }
.symbols { padding-left: 1.2rem; }
img { max-width: none; width: 40rem; }
  dl { display: block; }
  dd { margin-bottom: 0.5rem; }
}
@media (prefers-color-scheme: dark) {
  body { background: #16181c; color: #e6e6e6; }
  a { color: #8ab4f8; }
}
@media print {
  body { max-width: none; padding: 0; background: #fff; color: #000; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  .wide { overflow: visible; }
}
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

    The pictures are inside the page, which has no scripts and sends no requests.

    Args:
        title: of the page.
        facts: names and values, such as the network and the data.
        figures: with unique names. Where one shows an equation, the symbols are explained.
        tables: below the figures.
    """
    sections = [(_identifier(f.name), f.title, _figure(f)) for f in figures]
    sections += [(f"table-{n}", t.title, _table(t)) for n, t in enumerate(tables, 1)]
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        # Browsers would ask for /favicon.ico otherwise.
        '<link rel="icon" href="data:,">',
        f"<style>{_STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{escape(title)}</h1>",
        *_facts(facts),
        *(_section("symbols", "Symbols", [symbols()]) if any(f.equations for f in figures) else ()),
        *(_contents(sections) if len(figures) > _MOST_WITHOUT_CONTENTS else ()),
        *(line for section in sections for line in _section(*section)),
        *("</main>", "</body>", "</html>", ""),
    ]
    return "\n".join(lines).encode()


def _section(identifier, heading, body) -> Iterable[str]:
    yield "<section>"
    yield f'<h2 id="{identifier}">{escape(heading)}</h2>'
    yield from body
    yield "</section>"


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "-", name)


def _facts(facts: Mapping[str, str]) -> Iterable[str]:
    if facts:
        yield "<dl>"
        for name, value in facts.items():
            yield f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        yield "</dl>"


def _contents(sections) -> Iterable[str]:
    yield '<nav aria-label="Contents">'
    yield "<ul>"
    for identifier, heading, _ in sections:
        yield f'<li><a href="#{identifier}">{escape(heading)}</a></li>'
    yield "</ul>"
    yield "</nav>"


def _figure(figure: Figure) -> Iterable[str]:
    yield from map(numbered, figure.equations)
    if figure.png is None:
        yield f"<p>{_text(figure.caption)}</p>"
        return
    # The size in the header keeps the page from jumping while it loads.
    width, height = struct.unpack(">II", figure.png[16:24])
    data = base64.b64encode(figure.png).decode()
    size = f'width="{width}" height="{height}"'
    yield "<figure>"
    yield _scrolling(figure.title)
    yield f'<img src="data:image/png;base64,{data}" {size} alt="{escape(figure.alt)}">'
    yield "</div>"
    yield f"<figcaption>{_text(figure.caption)}</figcaption>"
    yield "</figure>"


def _text(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def _table(table: Table) -> Iterable[str]:
    yield _scrolling(table.title)
    yield "<table>"
    yield f"<caption>{_text(table.caption)}</caption>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    yield f"<thead><tr>{head}</tr></thead>"
    yield "<tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
    yield "</tbody>"
    yield "</table>"
    yield "</div>"


def _scrolling(label: str) -> str:
    """Opens a part that scrolls sideways on a phone, with keys as well, while the page stays."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">'
