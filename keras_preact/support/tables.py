"""Reads CSV files with checked columns; errors name the file and the line."""

import csv
import dataclasses
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from etils import epath

from keras_preact.support import records

MOST_BYTES = 2**30


@dataclasses.dataclass(frozen=True)
class Table:
    """The columns and lines that a CSV file must have.

    Args:
        columns: names of the columns, the first line.
        rule: the lines below, as in "a line for each evaluation".
        optional: names of columns that may be missing.
    """

    columns: Sequence[str]
    rule: str
    optional: Sequence[str] = ()

    def rows(self, path: epath.PathLike) -> Iterator[tuple[int, list[str]]]:
        """Yields the number and the cells of each line below the first that is not empty.

        Cells come in the order of `columns` and `optional`; those of a missing column are "".

        Args:
            path: of the file, on a disk or in a bucket.

        Raises:
            ValueError: if the file is no CSV of these columns, in any order, or a line has more
                or fewer; it names the file and the line.
            OSError: if it cannot be read.
        """
        data = records.contents(path, MOST_BYTES)
        with records.named(path, "a CSV"):
            text = records.decoded(data)
            if "\0" in text:
                raise ValueError("it must be text. Received: a NUL byte")
        # The module csv itself limits cells to 131,072 characters.
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            head = next(reader, [])
            if sorted(name for name in head if name not in self.optional) != sorted(
                self.columns
            ) or len(set(head)) < len(head):
                raise self.damaged(path, 1, head)
            names = (*self.columns, *self.optional)
            order = [head.index(name) if name in head else len(head) for name in names]
            for cells in filter(None, reader):
                if len(cells) != len(head):
                    raise self.damaged(path, reader.line_num, cells)
                yield reader.line_num, [[*cells, ""][place] for place in order]
        except csv.Error as error:
            raise self.damaged(path, max(reader.line_num, 1), str(error)) from None

    def damaged(self, path: epath.PathLike, line: int, received: Any) -> ValueError:
        """The error that names a line and what was received there."""
        return ValueError(
            f"{path} must have {self.rule}, under the names {', '.join(self.columns)}. "
            f"Received: line {line}: {records.short(received)}"
        )


def whole(cell: str) -> int:
    """Converts text to a whole number of at least 0; raises ValueError if it is none."""
    if not re.fullmatch(r"[0-9]{1,18}", cell):
        raise ValueError(
            f"must be a whole number of 1 to 18 digits. Received: {records.short(cell)}"
        )
    return int(cell)


def finite(cell: str) -> float:
    """Converts text to a finite number; raises ValueError if it is none."""
    if not math.isfinite(number := float(cell)):
        raise ValueError(f"must be a finite number. Received: {records.short(cell)}")
    return number
