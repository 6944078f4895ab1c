"""A report as one HTML file that needs nothing else."""

import base64
import dataclasses
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape

# Fewer are found without a table of contents.
_MOST_WITHOUT_CONTENTS = 3
# Nothing is loaded and nothing runs, whatever stands in the texts.
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
img { max-width: 100%; height: auto; background: #fff; }
figcaption, caption { text-align: left; max-width: 45rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; overflow-wrap: normal; font-variant-numeric: tabular-nums; }
caption { padding-bottom: 0.5rem; }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; border-bottom: 1px solid #8888; }
@media (max-width: 40rem) {
  .wide img { max-width: none; width: 40rem; }
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
class Picture:
    """A picture in a report.

    Args:
        name: of its file, without ".png"; unique in the report.
        title: the heading above.
        png: the file.
        caption: what to look for, in a sentence or two.
        equation: of the paper, like "equation (4)"; may be empty.
        alt: what is to be seen, for those who cannot see it.
    """

    name: str
    title: str
    png: bytes
    caption: str
    equation: str
    alt: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table in a report: its title, the names of the columns, the cells and a caption."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str


def html(
    title: str,
    facts: Mapping[str, str],
    pictures: Sequence[Picture],
    tables: Sequence[Table] = (),
) -> bytes:
    """A page with facts, pictures and tables, in this order, as UTF-8.

    The pictures are inside; the page has no scripts and asks nothing of the network.

    Args:
        title: of the page.
        facts: names and values, such as the network and the data.
        pictures: with unique names.
        tables: below the pictures.
    """
    sections = [(_identifier(p.name), p.title, _figure(p)) for p in pictures]
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
        *(_contents(sections) if len(pictures) > _MOST_WITHOUT_CONTENTS else ()),
    ]
    for identifier, heading, body in sections:
        lines += ["<section>", f'<h2 id="{identifier}">{escape(heading)}</h2>', *body, "</section>"]
    lines += ["</main>", "</body>", "</html>", ""]
    return "\n".join(lines).encode()


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


def _figure(picture: Picture) -> Iterable[str]:
    # The size in the header keeps the page from jumping while it loads.
    width, height = struct.unpack(">II", picture.png[16:24])
    data = base64.b64encode(picture.png).decode()
    size = f'width="{width}" height="{height}"'
    equation = f" See {picture.equation} of the paper." if picture.equation else ""
    yield "<figure>"
    yield _scrolling(picture.title)
    yield f'<img src="data:image/png;base64,{data}" {size} alt="{escape(picture.alt)}">'
    yield "</div>"
    yield f"<figcaption>{escape(picture.caption + equation)}</figcaption>"
    yield "</figure>"


def _table(table: Table) -> Iterable[str]:
    yield _scrolling(table.title)
    yield "<table>"
    yield f"<caption>{escape(table.caption)}</caption>"
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.head)
    yield f"<thead><tr>{head}</tr></thead>"
    yield "<tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>"
    yield "</tbody>"
    yield "</table>"
    yield "</div>"


def _scrolling(label: str) -> str:
    """Opens a part that on a phone scrolls sideways by itself, by keys too, not the page."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">'
