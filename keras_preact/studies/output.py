"""The outcome of a study and its folder: a page, its pictures and a CSV."""

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from keras_preact.studies import page
from keras_preact.support.files import check_replaceable, sealed

PAGE = "index.html"


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a study.

    Args:
        title: of the page.
        facts: the images, the runs and the like, by title.
        figures: in order.
        tables: below them.
        csv: every number, as a CSV file.
        summary: lines for the terminal.
    """

    title: str
    facts: Mapping[str, str]
    figures: Sequence[page.Figure]
    tables: Sequence[page.Table]
    csv: bytes
    summary: Sequence[str]


def check_folder(folder: epath.Path, overwrite: bool) -> None:
    """Refuses a folder that holds files of others; see `files.check_replaceable`."""
    check_replaceable(folder, overwrite, "output_dir", "an analysis")


def write(report: Report, folder: epath.Path, csv_name: str) -> None:
    """Writes a report to its folder, which takes its name only once it is whole."""
    with sealed(folder) as unfinished:
        (unfinished / csv_name).write_bytes(report.csv)
        for figure in report.figures:
            if figure.png is not None:
                (unfinished / f"{figure.name}.png").write_bytes(figure.png)
        html = page.html(report.title, report.facts, report.figures, report.tables)
        (unfinished / PAGE).write_bytes(html)


def columns(*results: Any) -> dict[str, np.ndarray]:
    """The one-dimensional arrays of some results, by name.

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


# The cells that all lines share; the name of each line; the columns.
_Part = tuple[Mapping[str, Any], Sequence[str], Mapping[str, np.ndarray]]


def csv_bytes(parts: Iterable[_Part], about: str = "unit") -> bytes:
    """A CSV of parts with the same columns, one below the other.

    Args:
        parts: the cells that all lines share, by column; the name of each line; and the columns
            with a number for each line.
        about: the column of the names.
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
