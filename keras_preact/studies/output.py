"""What a study hands over, and its folder: a page, its pictures and a CSV."""

import dataclasses
from collections.abc import Mapping, Sequence

from etils import epath

from keras_preact.studies import page
from keras_preact.support.files import MANIFEST, read_manifest, sealed

PAGE = "index.html"
# macOS leaves it where a folder has been looked at.
_OF_THE_SYSTEM = {".DS_Store"}


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a study.

    Args:
        title: of the page.
        facts: what was measured, on what and how, by title.
        pictures: in order.
        tables: below them.
        csv: every figure.
        summary: lines for the terminal.
    """

    title: str
    facts: Mapping[str, str]
    pictures: Sequence[page.Picture]
    tables: Sequence[page.Table]
    csv: bytes
    summary: Sequence[str]


def check_folder(folder: epath.Path, overwrite: bool) -> None:
    """Refuses, before anything is measured, a folder that holds what must not be replaced.

    Raises:
        ValueError: if the folder is a file, holds an earlier analysis and overwrite is not
            set, or holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"output_dir must be a folder. Received: {folder}, which is a file")
    # With hidden ones: all that lies there is replaced.
    names = {path.name for path in folder.iterdir()} - _OF_THE_SYSTEM
    if others := names - _written(folder):
        raise ValueError(
            "output_dir must be a new or empty folder, or that of an earlier analysis. "
            f"Received: {folder}, which holds something else: {', '.join(sorted(others)[:3])}"
        )
    if names and not overwrite:
        raise ValueError(
            f"{folder} holds an analysis already. Give --overwrite to replace it, or another "
            "--output_dir."
        )


def _written(folder):
    """The names of the files of an earlier analysis, by its manifest; none without one."""
    try:
        return {MANIFEST, *read_manifest(folder / MANIFEST).files}
    except (OSError, ValueError):
        return set()


def write(report: Report, folder: epath.Path, csv_name: str) -> None:
    """Writes a report to its folder, which takes its name only once it is whole."""
    with sealed(folder) as unfinished:
        (unfinished / csv_name).write_bytes(report.csv)
        for picture in report.pictures:
            (unfinished / f"{picture.name}.png").write_bytes(picture.png)
        html = page.html(report.title, report.facts, report.pictures, report.tables)
        (unfinished / PAGE).write_bytes(html)
