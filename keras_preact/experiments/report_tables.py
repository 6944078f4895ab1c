"""The report's tables and CSV files."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from keras_preact.experiments.document import Table
from keras_preact.experiments.experiment import Experiment
from keras_preact.experiments.rankings import EQUAL, OPEN, REVERSED, SAME, Verdict, errors
from keras_preact.experiments.report_wording import (
    NOTHING,
    column_name,
    counts,
    duration,
    fails,
    measured_header,
    percent,
    published_header,
    published_texts,
)
from keras_preact.experiments.results import RowResult
from keras_preact.experiments.run_facts import RunFacts
from keras_preact.experiments.statistics import LEVEL, spread
from keras_preact.support.text import aligned, printable

_ORDERS = {SAME: "same", REVERSED: "reversed", EQUAL: "equal medians", OPEN: "undecided"}
_MOST_LETTERS = 160


def of_errors(experiment: Experiment, results: Sequence[RowResult]) -> Table:
    """The table of a column: published beside measured errors.

    Args:
        experiment: of the rows.
        results: of the rows of the column.
    """
    column = column_name(results)
    published = any(result.row.published for result in results)
    measured = measured_header(experiment, results)
    head = ["", *([published_header(results)] * published), f"{measured}: median"]
    head += ["mean \N{PLUS-MINUS SIGN} std", "training error", "runs finished"]
    head += ["place"] * published
    rows, as_published = [], published_texts(results)
    for result in results:
        shown = _measured(result, experiment, results)
        own = result.row.published
        cells = [result.row.label, *([as_published[result.row.name]] * published), *shown]
        cells += [percent(_training(result)), counts(result)]
        rows.append([*cells, *([own.where if own else NOTHING] * published)])
    two = ", top-1 / top-5" if any(_top5(result) for result in results) else ""
    caption = (
        f"{column}: test error in percent{two}. The mean and the sample standard deviation are "
        "over the finished runs alone; a run that diverged counts in the median as the highest "
        "error. The training error is the median of the finished runs on augmented images, since "
        "the last evaluation but one."
    )
    return Table(f"Errors, {column}", head, rows, caption)


def _measured(result, experiment, results):
    """The cells of median, and mean with standard deviation."""
    values = errors(result)
    if not values:
        return NOTHING, NOTHING
    shown = [_spread(values)]
    median = shown[0][0]
    if fails(spread(values).median, experiment, results):
        median += " (fails)"
    if top5 := _top5(result):
        shown.append(_spread(top5))
        median += f" / {shown[1][0]}"
    return median, " / ".join(text for _, text in shown)


def _training(result):
    last = [1 - run.rows[-1].train_accuracy for run in result.of_state("finished")]
    last = [value for value in last if math.isfinite(value)]
    return spread(last).median if last else None


def _spread(values):
    found = spread(values)
    mean = percent(found.mean)
    if not math.isnan(found.std):
        mean += f" \N{PLUS-MINUS SIGN} {percent(found.std)}"
    return percent(found.median), mean


def _top5(result):
    own = result.row.published
    if own is None or own.top5_error_percent is None:
        return []
    values = [run.test_top5_error for run in result.of_state("finished")]
    values = [value for value in values if value is not None]
    return values and [*values, *[math.inf] * len(result.of_state("diverged"))]


def of_rankings(found: Sequence[Verdict], results: Sequence[RowResult]) -> Table:
    """The table of all claims."""
    rows = {result.row.name: result.row for result in results}
    as_published = published_texts(results)
    head = ("lower error", "than", "published", "measured medians", "order here", "runs")
    head += ("p", "p, corrected", "place")
    lines = []
    # Those that say something first.
    for verdict in sorted(found, key=lambda verdict: verdict.order == OPEN):
        better, worse = rows[verdict.claim.better], rows[verdict.claim.worse]
        published = [as_published[row.name] for row in (better, worse)]
        medians = [percent(value) for value in verdict.medians]
        cells = [better.label, worse.label, " < ".join(published)]
        if not better.published or not worse.published:
            cells[-1] = "by a curve or by another table"
        cells += [f"{medians[0]} | {medians[1]}", _ORDERS[verdict.order]]
        cells += [f"{verdict.runs[0]} and {verdict.runs[1]}", p_value(verdict.p)]
        lines.append([*cells, p_value(verdict.corrected_p), verdict.claim.where])
    caption = (
        "Each line is a claim that the first row has the lower test error. p is that of the exact "
        "one-sided Mann-Whitney test in the direction of the claim; corrected, by Holm's method "
        f"for all tested claims. There is none where no outcome could reach {LEVEL:g}."
    )
    return Table("All rankings", head, lines, caption, is_long=len(lines) > 12)


def p_value(p: float | None) -> str:
    """A p-value with two digits."""
    return NOTHING if p is None else f"{p:.2g}"


def of_runs(facts: Sequence[tuple[RowResult, RunFacts]]) -> Table:
    """The table of all runs and their states."""
    head = ("row", "seed", "state", "steps", "test error (%)", "time", "images/s", "remark")
    lines = []
    for row, run in facts:
        result = run.result
        steps = NOTHING
        if result.train_steps is not None:
            steps = f"{run.steps:,} of {result.train_steps:,}"
        elif run.steps:
            steps = f"{run.steps:,}"
        rate = NOTHING if run.images_per_second is None else f"{run.images_per_second:,.0f}"
        remark = " ".join([result.message] if result.state != "damaged" else run.problems)
        cells = [row.row.label, str(result.seed), result.state, steps, percent(result.test_error)]
        lines.append([*cells, duration(run.seconds), rate, _cut(remark)])
    caption = "Time is that in training, over all calls of a run, up to its last evaluation"
    if total := sum(run.seconds or 0 for _, run in facts):
        caption += f"; {duration(total)} in all runs"
    caption += "."
    return Table("Runs", head, lines, caption, is_long=len(lines) > 20)


def of_environments(facts: Iterable[RunFacts]) -> Table | None:
    """The table of environments with the number of runs in each; None without a run."""
    found: dict = {}
    for run in facts:
        if run.environment is not None:
            found[run.environment] = found.get(run.environment, 0) + 1
    if not found:
        return None
    rows = [(str(n), e.devices, e.precision, e.versions) for e, n in found.items()]
    caption = "Devices, precision and versions of the last call of each run."
    return Table("Environments", ("runs", "devices", "precision", "versions"), rows, caption)


def _cut(text):
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."


def runs_csv(experiment: Experiment, facts: Sequence[tuple[RowResult, RunFacts]]) -> bytes:
    """A line for each run; errors in percent."""
    head = ["table", "budget", "row", "label", "column", "place", "published_error_percent"]
    head += ["published_top5_error_percent", "seed", "state", "steps", "train_steps"]
    head += ["test_error_percent", "test_top5_error_percent", "test_images"]
    head += ["last_training_error_percent", "training_seconds", "images_per_second", "message"]
    budget = experiment.name.removeprefix(f"{experiment.table.name}-")
    lines = []
    for row, run in facts:
        own, result = row.row.published, run.result
        published = [None, None, None]
        if own:
            error = "fail" if own.fails else own.error_percent
            published = [own.where, error, own.top5_error_percent]
        last = 100 * run.training.errors[-1] if run.training else None
        cells = [experiment.table.name, budget, row.row.name, row.row.label, row.row.column]
        cells += [*published, result.seed, result.state, run.steps, result.train_steps]
        cells += [_percent(result.test_error), _percent(result.test_top5_error)]
        cells += [result.test_images, last, run.seconds, run.images_per_second, result.message]
        lines.append(cells)
    return _csv(head, lines)


def rankings_csv(found: Sequence[Verdict]) -> bytes:
    """A line for each claim."""
    head = ["better", "worse", "place", "order", "better_median_error_percent"]
    head += ["worse_median_error_percent", "better_runs", "worse_runs", "p", "reverse_p"]
    lines = []
    for verdict in found:
        claim = verdict.claim
        cells = [claim.better, claim.worse, claim.where, verdict.order]
        cells += [*map(_percent, verdict.medians), *verdict.runs]
        lines.append([*cells, verdict.p, verdict.reverse_p, verdict.corrected_p])
    return _csv([*head, "corrected_p"], lines)


def curves_csv(facts: Sequence[tuple[RowResult, RunFacts]]) -> bytes:
    """A line for each point of each curve."""
    lines = [
        [row.row.name, run.result.seed, split, int(step), _percent(error)]
        for row, run in facts
        for split, curve in (("training", run.training), ("evaluation", run.evaluation))
        for step, error in zip(curve.steps, curve.errors, strict=True)
    ]
    return _csv(["row", "seed", "split", "step", "error_percent"], lines)


def _percent(share):
    return None if share is None or math.isnan(share) else 100 * share


def _csv(head: Sequence[str], lines: Iterable[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_cell(value) for value in line] for line in lines)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value):
    if isinstance(value, float):
        return f"{value:.8g}"
    return "" if value is None else printable(value) if isinstance(value, str) else value


def as_text(table: Table) -> str:
    """A table for the terminal."""
    rows = [[printable(cell) for cell in row] for row in table.rows]
    return aligned(table.head, rows)
