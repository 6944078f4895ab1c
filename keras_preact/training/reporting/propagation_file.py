"""propagation.csv: signal and gradient in each residual unit, after some steps of a run."""

import csv
import dataclasses
import io
import itertools

import numpy as np
from etils import epath

from keras_preact.analysis import Backward, Forward
from keras_preact.support import tables
from keras_preact.support.files import write_whole


@dataclasses.dataclass(frozen=True)
class Record:
    """Signal and gradient in each unit after a step.

    Args:
        step: number of steps taken.
        forward: the signal in each unit.
        backward: the gradient in each unit.
    """

    step: int
    forward: Forward
    backward: Backward


@dataclasses.dataclass(frozen=True)
class PropagationLog:
    """The records of a run. Arrays are float64 (records, units).

    Args:
        steps: number of steps before each record, int64 (records,), ascending.
        units: names of the residual units, first to last.
        gradient_norm, shortcut_norm, residual_norm, cosine: of `Backward`.
        truncated_fraction, zero_fraction, variance: of `Forward`.
    """

    steps: np.ndarray
    units: tuple[str, ...]
    gradient_norm: np.ndarray
    shortcut_norm: np.ndarray
    residual_norm: np.ndarray
    cosine: np.ndarray
    truncated_fraction: np.ndarray
    zero_fraction: np.ndarray
    variance: np.ndarray


FIGURES = [field.name for field in dataclasses.fields(PropagationLog)][2:]
COLUMNS = ["step", "unit", *FIGURES]
_TABLE = tables.Table(COLUMNS, "a line for each unit of each record, one record after the other")


def read(path: epath.PathLike) -> PropagationLog | None:
    """Reads propagation.csv; returns None if there is no such file, or no record in it.

    Raises:
        ValueError: if the file is damaged; names the file and the line.
    """
    path = epath.Path(path)
    if not path.exists():
        return None
    rows, numbers = [], []
    for number, (step, unit, *cells) in _TABLE.rows(path):
        try:
            rows.append((tables.whole(step), unit, np.array(cells, np.float64)))
        except ValueError:
            raise _TABLE.damaged(path, number, [step, unit, *cells]) from None
        numbers.append(number)
    if not rows:
        return None
    # The first record gives the units of all.
    first = itertools.takewhile(lambda row: row[0] == rows[0][0], rows)
    units = tuple(unit for _, unit, _ in first)
    steps = sorted({step for step, _, _ in rows})
    expected = itertools.product(steps, units)
    for number, row, pair in itertools.zip_longest(numbers, rows, expected):
        if row is None or row[:2] != pair:
            received = [*row[:2], *row[2].tolist()] if row else "nothing"
            raise _TABLE.damaged(path, number or numbers[-1] + 1, received)
    figures = np.array([values for _, _, values in rows])
    figures = figures.reshape(len(steps), len(units), len(FIGURES))
    return PropagationLog(np.array(steps), units, *np.moveaxis(figures, -1, 0))


class PropagationWriter:
    """Keeps the records of a run, and writes propagation.csv.

    Args:
        path: of propagation.csv; its records are kept.

    Raises:
        ValueError: if the file is damaged.
    """

    def __init__(self, path: epath.PathLike):
        self._path, log = epath.Path(path), read(path)
        self._units, self._records = (), {}
        if log is not None:
            columns = [getattr(log, name) for name in FIGURES]
            self._units = log.units
            self._records = dict(zip(log.steps.tolist(), np.stack(columns, axis=-1), strict=True))

    def has(self, step: int) -> bool:
        """Whether there is a record after a step."""
        return step in self._records

    def drop_after(self, step: int) -> None:
        """Drops the records beyond a step: later steps will be taken again."""
        kept = {number: figures for number, figures in self._records.items() if number <= step}
        if len(kept) < len(self._records):
            self._records = kept
            self._write()

    def add(self, record: Record) -> None:
        """Adds a record and writes the file. If writing fails, the next record writes both."""
        measured = {**vars(record.forward), **vars(record.backward)}
        self._units = record.backward.units
        self._records[record.step] = np.stack([measured[name] for name in FIGURES], axis=-1)
        self._write()

    def _write(self):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for step, figures in self._records.items():
            for unit, values in zip(self._units, figures, strict=True):
                writer.writerow([step, unit, *(f"{value:.6g}" for value in values)])
        write_whole(self._path, text.getvalue().encode())
