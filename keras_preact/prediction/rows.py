"""The formats of an output: a row for each file, as CSV or as lines of JSON."""

import csv
import io
import json
from collections.abc import Iterator
from typing import BinaryIO, Protocol

from keras_preact.prediction.answers import Prediction

_QUOTE = '"'
_SPECIAL = {_QUOTE, ",", "\r", "\n"}


class Format(Protocol):
    """A format of rows; each ends with a line break.

    Attributes:
        header: the bytes before the first row.
    """

    header: bytes

    def row(self, prediction: Prediction) -> bytes:
        """Returns the row of a prediction."""

    def parse(self, row: bytes) -> Prediction:
        """Returns the prediction in a row; raises ValueError if it is no row of this format."""

    def is_whole(self, line: bytes) -> bool:
        """Whether a line, or several, are a whole row."""


def by_name(path: str, classes: int) -> Format:
    """Returns the format that the name of a file asks for.

    Args:
        path: ends in .csv or .jsonl.
        classes: of each row.
    """
    return JsonLines() if path.endswith(".jsonl") else Csv(classes)


def text(name: str) -> str:
    r"""A path as it stands in a row: bytes that are no UTF-8 become `\udcNN`."""
    return name.encode("utf-8", "backslashreplace").decode()


class Csv:
    """file,class_1,score_1,...,class_k,score_k,error; quoted where needed, as RFC 4180 says.

    Args:
        classes: of each row, k.
    """

    def __init__(self, classes: int):
        self._classes = classes
        numbers = range(1, classes + 1)
        pairs = [name for n in numbers for name in (f"class_{n}", f"score_{n}")]
        self.header = _line(["file", *pairs, "error"])

    def row(self, prediction: Prediction) -> bytes:
        cells = [""] * (2 * self._classes)
        cells[: 2 * len(prediction.classes) : 2] = prediction.classes
        cells[1 : 2 * len(prediction.scores) : 2] = map(_digits, prediction.scores)
        return _line([text(prediction.file), *cells, prediction.error or ""])

    def parse(self, row: bytes) -> Prediction:
        try:
            [cells] = csv.reader(io.StringIO(row.decode(), newline=""), strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from None
        if len(cells) != 2 * self._classes + 2:
            raise ValueError(f"{len(cells)} columns, not {2 * self._classes + 2}")
        file, *pairs, error = cells
        if error:
            return Prediction(file, error=error)
        return Prediction(file, tuple(pairs[::2]), tuple(map(float, pairs[1::2])))

    def is_whole(self, line: bytes) -> bool:
        # A quote within a cell is written twice.
        return line.endswith(b"\n") and line.count(b'"') % 2 == 0


class JsonLines:
    """{"file": ..., "classes": [...], "scores": [...], "error": null}; ASCII, escaped."""

    header = b""

    def row(self, prediction: Prediction) -> bytes:
        value = {
            "file": prediction.file,
            "classes": prediction.classes,
            "scores": [float(_digits(score)) for score in prediction.scores],
            "error": prediction.error,
        }
        return f"{json.dumps(value)}\n".encode()

    def parse(self, row: bytes) -> Prediction:
        try:
            value = json.loads(row)
            return Prediction(
                value["file"], tuple(value["classes"]), tuple(value["scores"]), value["error"]
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"no row: {error}") from None

    def is_whole(self, line: bytes) -> bool:
        return line.endswith(b"\n")


def read(file: BinaryIO, form: Format) -> Iterator[bytes]:
    """Yields the whole rows of a file, the header among them; a last one that is cut is left out.

    Args:
        file: open at its beginning.
        form: of its rows.
    """
    parts = []
    for line in file:
        parts.append(line)
        if form.is_whole(row := b"".join(parts)):
            yield row
            parts = []


def _line(cells):
    return f"{','.join(map(_cell, cells))}\n".encode()


def _cell(cell):
    # Python's writer leaves a carriage return bare, which its reader takes for the end of a row.
    return f'"{cell.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL & set(cell) else cell


def _digits(score):
    return f"{score:.6g}"
