"""The pictures of the report with their captions."""

import hashlib
import math
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from keras_preact.experiments import curve_pictures, error_pictures, propagation_pictures
from keras_preact.experiments.document import Block, Picture
from keras_preact.experiments.experiment import Experiment
from keras_preact.experiments.rankings import EQUAL, OPEN, REVERSED, SAME, Verdict, errors
from keras_preact.experiments.report_wording import (
    column_name,
    measured_header,
    published_header,
    short_labels,
)
from keras_preact.experiments.results import RowResult
from keras_preact.experiments.row_curves import RowCurves, of_row
from keras_preact.experiments.run_facts import RunFacts
from keras_preact.studies import training_figures
from keras_preact.support.text import printable

# A runner writes the report each time that a run ends, after which most pictures are as before.
_MOST_REMEMBERED = 512
_remembered: dict[bytes, Any] = {}

_Facts = Sequence[tuple[RowResult, RunFacts]]
T = TypeVar("T")

_SIGNS = {SAME: "+", REVERSED: "\N{MINUS SIGN}", EQUAL: "?", OPEN: "?"}
# A matrix of fewer claims says less than the sentence.
_FEWEST_CLAIMS = 3
_MOST_LETTERS = 60


def _once(draw: Callable[..., T], *arguments: Any) -> T:
    """What a function returned for equal arguments before in this process, else what it returns."""
    key = hashlib.sha256(pickle.dumps((draw.__module__, draw.__qualname__, arguments))).digest()
    if key not in _remembered:
        if len(_remembered) >= _MOST_REMEMBERED:
            _remembered.clear()
        _remembered[key] = draw(*arguments)
    return _remembered[key]


def error_picture(
    experiment: Experiment, number: int, rows: Sequence[RowResult]
) -> Iterator[Picture]:
    """The picture of a column's errors; none without a result.

    Args:
        experiment: of the rows.
        number: of the column, from 1.
        rows: of the column.
    """
    rows = [row for row in rows if _has_begun(row)]
    if not any(errors(row) for row in rows):
        return
    drawn = [
        (label, [100 * error for error in errors(row)], _published(row))
        for label, row in zip(_labels(rows), rows, strict=True)
    ]
    title = f"Test errors: {_name(rows)}"
    headers = published_header(rows), measured_header(experiment, rows)
    png = _once(error_pictures.errors, drawn, title, *headers)
    caption = "Each dot is a run."
    if any(own is not None for *_, own in drawn) and not experiment.budget.is_published_setting:
        caption += (
            " The published errors are of the full recipe, the measured ones are not: their order "
            "can be compared, their values cannot."
        )
    yield Picture(f"errors-{number}", f"Test error of each run, {_name(rows)}", caption, png)


def _published(row):
    own = row.row.published
    if own is None:
        return None
    return math.inf if own.fails else own.error_percent


def order_picture(
    number: int, rows: Sequence[RowResult], ranked: Sequence[Verdict]
) -> Iterator[Picture]:
    """The matrix of a column's rankings; none for few claims or without a result."""
    rows = [row for row in rows if _has_begun(row)]
    labels = dict(zip((row.row.name for row in rows), _labels(rows), strict=True))
    own = [v for v in ranked if v.claim.better in labels and v.claim.worse in labels]
    if len(own) < _FEWEST_CLAIMS or all(verdict.order == OPEN for verdict in own):
        return
    # Rows that are better in more claims come first.
    wins = {name: sum(v.claim.better == name for v in own) for name in labels}
    losses = {name: sum(v.claim.worse == name for v in own) for name in labels}
    names = sorted(labels, key=lambda name: losses[name] - wins[name])
    cells = [
        (names.index(v.claim.better), names.index(v.claim.worse), _SIGNS[v.order], v.is_clear)
        for v in own
    ]
    title = f"Rankings: {_name(rows)}"
    png = _once(error_pictures.order, [labels[name] for name in names], cells, title)
    caption = (
        "A square for each claim that the row on the left has a lower error than the row above: "
        "+ where the measured medians are in that order, \N{MINUS SIGN} where they are reversed, "
        "? where they are equal or a row has no result. Dark squares: the test confirms the order."
    )
    yield Picture(f"rankings-{number}", f"Matrix of the rankings, {_name(rows)}", caption, png)


def curves(columns: Mapping[str, Sequence[RowResult]], facts: _Facts) -> Iterator[Block]:
    """The learning curves of each column: all rows in one picture, then a panel for each."""
    is_empty = True
    for number, rows in enumerate(columns.values(), 1):
        found = [
            of_row(label, row, [run for other, run in facts if other is row])
            for label, row in zip(_labels(rows), rows, strict=True)
            if _has_begun(row)
        ]
        drawn = [row for row in found if row.main]
        if not drawn:
            continue
        is_empty = False
        error, remark = _kind(drawn, facts)
        name = _name(rows)
        png = _once(curve_pictures.overview, drawn, f"{error.capitalize()}: {name}", error)
        with_curve = {row.label for row in drawn}
        missing = [label for label in _labels(rows) if label not in with_curve]
        caption = f"Medians over the runs of each row, with the range of the runs. {remark}"
        if missing:
            caption += f" No curve yet: {'; '.join(missing)}."
        yield Picture(f"curves-{number}", f"{error} of all rows, {name}", caption, png)
        png = _once(curve_pictures.panels, found, f"Learning curves: {name}", _evaluation(facts))
        caption = (
            "Training error thin and dashed, on augmented images; "
            f"{_evaluation(facts)} bold; each the median over the runs that have got there, with "
            "their range."
        )
        yield Picture(f"rows-{number}", f"Learning curves of each row, {name}", caption, png)
    if is_empty:
        yield "No run has been evaluated yet."


def _kind(drawn: Sequence[RowCurves], facts) -> tuple[str, str]:
    """The error that the overview draws, and a remark on where it comes from."""
    logged = [row.label for row in drawn if row.is_logged]
    if not logged:
        return _evaluation(facts), ""
    remark = "the training error of the log steps, from TensorBoard's scalars, is drawn"
    if len(logged) == len(drawn):
        return "training error", f"There are too few evaluations for a curve: {remark}."
    return "error", f"Too few evaluations for a curve of {'; '.join(logged)}: {remark}."


def _evaluation(facts):
    held_out = any(run.images and run.images[2] for _, run in facts)
    return "validation error" if held_out else "test error"


def gradients(columns: Mapping[str, Sequence[RowResult]], facts: _Facts) -> Iterator[Block]:
    """The gradient in the units of all rows of each column."""
    for number, rows in enumerate(columns.values(), 1):
        logs = [
            (label, log)
            for label, row in zip(_labels(rows), rows, strict=True)
            if (log := _log([run for other, run in facts if other is row])) is not None
        ]
        if logs:
            png = _once(propagation_pictures.gradients, logs, f"Gradient by unit: {_name(rows)}")
            caption = (
                "Norm of the gradient of the loss at the input of each residual unit, at the first "
                "and the last record of the first run of each row that has records."
            )
            alt = f"Gradient in each unit of each row, {_name(rows)}"
            yield Picture(f"gradients-{number}", alt, caption, png)


def _has_begun(row):
    return any(run.state != "missing" for run in row.seeds)


def of_one_row(result: RowResult, facts: Sequence[RunFacts]) -> Iterator[Block]:
    """The propagation pictures of a row."""
    log = _log(facts)
    if log is None:
        return
    for figure in _once(training_figures.figures, log, _short(result.row.label)):
        name = f"{result.row.name}-{figure.name}"
        yield Picture(name, figure.alt, figure.caption, figure.png, on_page_only=True)


def _log(facts):
    return next((run.propagation for run in facts if run.propagation is not None), None)


def _labels(rows):
    return short_labels([_short(row.row.label) for row in rows])


def _name(rows):
    return _short(column_name(rows))


def _short(text):
    safe = printable(text)
    return safe if len(safe) <= _MOST_LETTERS else f"{safe[: _MOST_LETTERS - 3]}..."
