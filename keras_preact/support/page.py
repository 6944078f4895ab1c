"""Self-contained HTML pages: text, pictures and tables in one file, without scripts."""

import base64
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

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
section > p { max-width: 45rem; }
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


class Html(str):
    """Text that is HTML already. Text of any other class is escaped where it is shown."""


class Section(NamedTuple):
    """A part of a page.

    Args:
        name: of its anchor, unique in the page.
        title: the heading.
        body: lines of HTML.
        is_listed: whether the contents list it.
    """

    name: str
    title: str
    body: Sequence[str]
    is_listed: bool = True


def document(
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[Section],
    *,
    contents_after: int | None = None,
    style: str = "",
) -> bytes:
    """Returns a page as UTF-8, which has no scripts and sends no requests.

    Args:
        title: of the page.
        facts: names and values, below the title.
        sections: below the facts.
        contents_after: number of sections before the contents; None for no contents.
        style: CSS beside that of all pages.
    """
    before = sections[: contents_after or 0]
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
        f"<style>{_STYLE}{style}</style>",
        "</head>",
        "<body>",
        "<main>",
        f"<h1>{escape(title)}</h1>",
        *_facts(facts),
        *(line for section in before for line in _section(section)),
        *(_contents(sections) if contents_after is not None else ()),
        *(line for section in sections[len(before) :] for line in _section(section)),
        *("</main>", "</body>", "</html>", ""),
    ]
    return "\n".join(lines).encode()


def picture(png: bytes, alt: str, caption: str = "", label: str = "") -> Iterable[str]:
    """Yields the lines of a picture with its caption.

    Args:
        png: the file.
        alt: describes the picture to readers who cannot see it.
        caption: text, or `Html`.
        label: names the part that scrolls sideways on a phone; default: alt.
    """
    # The size in the header keeps the page from jumping while it loads.
    width, height = struct.unpack(">II", png[16:24])
    data = base64.b64encode(png).decode()
    size = f'width="{width}" height="{height}"'
    yield "<figure>"
    yield _scrolling(label or alt)
    yield f'<img src="data:image/png;base64,{data}" {size} alt="{escape(alt)}">'
    yield "</div>"
    if caption:
        yield f"<figcaption>{text(caption)}</figcaption>"
    yield "</figure>"


def table(
    title: str, head: Sequence[str], rows: Iterable[Sequence[object]], caption: str
) -> Iterable[str]:
    """Yields the lines of a table; cells are text, or `Html`."""
    yield _scrolling(title)
    yield "<table>"
    yield f"<caption>{text(caption)}</caption>"
    names = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    yield f"<thead><tr>{names}</tr></thead>"
    yield "<tbody>"
    for row in rows:
        yield "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody>"
    yield "</table>"
    yield "</div>"


def text(value: object) -> str:
    """Returns a value as HTML: `Html` as it is, anything else as escaped text."""
    return value if isinstance(value, Html) else escape(str(value))


def _section(section) -> Iterable[str]:
    yield "<section>"
    yield f'<h2 id="{_anchor(section.name)}">{escape(section.title)}</h2>'
    yield from section.body
    yield "</section>"


def _anchor(name: str) -> str:
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
    for section in sections:
        if section.is_listed:
            yield f'<li><a href="#{_anchor(section.name)}">{escape(section.title)}</a></li>'
    yield "</ul>"
    yield "</nav>"


def _scrolling(label: str) -> str:
    """Opens a part that scrolls sideways on a phone, with keys as well, while the page stays."""
    return f'<div class="wide" role="region" tabindex="0" aria-label="{escape(label)}">'
