"""The report of an experiment, from its run folders alone: Markdown, a page, and CSV files."""

import contextlib
import shlex
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from keras_preact.experiments import (
    process,
    report_markdown,
    report_page,
    results,
    run_facts,
    train_flags,
)
from keras_preact.experiments import report_tables as tables
from keras_preact.experiments.document import (
    Block,
    Commands,
    Document,
    Points,
    Section,
)
from keras_preact.experiments.experiment import MARKDOWN, PAGE, Experiment
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.rankings import Verdict, correlation, sentences, verdicts
from keras_preact.experiments.report_pictures import (
    curves,
    error_picture,
    gradients,
    of_one_row,
    order_picture,
)
from keras_preact.experiments.report_wording import (
    about_figures,
    column_name,
    counts,
    reversed_rankings,
)
from keras_preact.experiments.results import RowResult
from keras_preact.experiments.run_facts import RunFacts
from keras_preact.support.files import write_whole
from keras_preact.support.text import printable

CSV, RANKINGS_CSV, CURVES_CSV = "results.csv", "rankings.csv", "curves.csv"

_PROGRAM = ("keras-preact",)
# Flags of experiments that are fields of runs as well.
_OWN_FLAGS = ("data_dir", "validation_images")

_Facts = Sequence[tuple[RowResult, RunFacts]]


def write(experiment: Experiment) -> str:
    """Writes the report of an experiment beside its record; other files there stay.

    It reads the folders of the runs and nothing else: runs may be missing, at work, or damaged.

    Returns:
        Lines for the terminal.
    """
    found = results.collect(experiment)
    facts = [(row, run_facts.read(run)) for row in found for run in row.seeds]
    ranked = verdicts(experiment.table, found)
    document = _document(experiment, found, facts, ranked)
    folder = experiment.report_folder
    figures = folder / report_markdown.FIGURES
    figures.mkdir(parents=True, exist_ok=True)
    for picture in document.pictures():
        if not picture.on_page_only:
            write_whole(figures / f"{picture.name}.png", picture.png, rivals=True)
    files = {
        CSV: tables.runs_csv(experiment, facts),
        RANKINGS_CSV: tables.rankings_csv(ranked),
        CURVES_CSV: tables.curves_csv(facts),
        MARKDOWN: report_markdown.write(document),
        PAGE: report_page.write(document),
    }
    for name, data in files.items():
        # Shards of an experiment may end at the same time.
        write_whole(folder / name, data, rivals=True)
    return "\n".join([*document.summary, f"Report: {folder / PAGE}"])


def sparing(
    experiment: Experiment, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """A function that writes the report between runs, at most a tenth of the time.

    Runs go on where the report cannot be written; the last `write` tells why.

    Args:
        experiment: as for `write`.
        clock: in seconds.
    """
    free_from = clock()

    def write_if_free() -> None:
        nonlocal free_from
        began = clock()
        if began < free_from:
            return
        with contextlib.suppress(OSError):
            write(experiment)
        free_from = clock() + 9 * (clock() - began)

    return write_if_free


def _document(
    experiment: Experiment,
    found: Sequence[RowResult],
    facts: _Facts,
    ranked: Sequence[Verdict],
) -> Document:
    table = experiment.table
    columns = _columns(found)
    about = about_figures(experiment, found, [run for _, run in facts])
    error_tables = [tables.of_errors(experiment, rows) for rows in columns.values()]
    ranking_lines = [
        *sentences(ranked, _whose(experiment)),
        *reversed_rankings(ranked, table),
        *_correlations(experiment, columns),
    ]
    sections = [
        Section("figures", "What these figures are", [Points(about)]),
        Section("errors", "Errors", [*_errors(experiment, columns, error_tables)]),
        Section("rankings", "Rankings", [*_rankings(ranking_lines, ranked, found, columns)]),
        Section("curves", "Learning curves", [*curves(columns, facts)]),
        *_propagation(columns, facts),
        *_rows(found, facts),
        Section("runs", "Runs", [tables.of_runs(facts), *_problems(facts)]),
        Section("environment", "Environment", [*_environment(facts)]),
        Section("commands", "Commands", [*_commands(experiment, facts)]),
    ]
    shown = {
        **({"Publication": table.source} if table.source else {}),
        "Table": f"{table.name}, {len(found)} {'row' if len(found) == 1 else 'rows'}",
        "Budget": f"{experiment.budget.name}: {experiment.budget.meaning}",
        "Seeds": ", ".join(map(str, experiment.seeds)),
        "Runs": _states(found),
    }
    summary = [
        printable(f"{table.title}, budget {experiment.budget.name}: {experiment.budget.meaning}"),
        *(tables.as_text(each) for each in error_tables),
        *map(printable, ranking_lines),
    ]
    title = f"{table.title}, budget {experiment.budget.name}"
    return Document(title, shown, sections, summary)


def _columns(found) -> dict[str, list[RowResult]]:
    columns: dict[str, list[RowResult]] = {}
    for result in found:
        columns.setdefault(result.row.column, []).append(result)
    return columns


def _whose(experiment):
    return "the publication" if experiment.table.source else "the table"


def _states(found) -> str:
    every = [run for row in found for run in row.seeds]
    states = [
        f"{number} {state}"
        for state in reversed(results.STATES)
        if (number := sum(run.state == state for run in every))
    ]
    return f"{len(every)} planned: {', '.join(states)}"


def _errors(experiment, columns, error_tables) -> Iterator[Block]:
    for number, (rows, table) in enumerate(zip(columns.values(), error_tables, strict=True), 1):
        yield table
        yield from error_picture(experiment, number, rows)


def _rankings(lines, ranked, found, columns) -> Iterator[Block]:
    yield Points(lines)
    if not ranked:
        return
    for number, rows in enumerate(columns.values(), 1):
        yield from order_picture(number, rows, ranked)
    yield tables.of_rankings(ranked, found)


def _correlations(experiment, columns) -> Iterable[str]:
    for rows in columns.values():
        if (found := correlation(rows)) is not None:
            tau, p, count = found
            yield (
                f"{column_name(rows)}: Kendall's rank correlation of the published errors and the "
                f"measured medians of {count} rows is {tau:.2f} (1: the same order; -1: the "
                f"opposite); rows in random order reach it with p = {p:.2g} (permutation test of "
                "the whole order)."
            )
    yield (
        "These sentences are about the order of errors under this budget "
        f"({experiment.budget.meaning}), and about nothing else."
    )


def _propagation(columns, facts) -> Iterator[Section]:
    blocks = [*gradients(columns, facts)]
    if blocks:
        yield Section("propagation", "Signal and gradient", blocks)


def _rows(found, facts) -> Iterator[Section]:
    """A section for each row that has begun, on the page alone."""
    for result in found:
        its_facts = [run for row, run in facts if row is result]
        blocks = [*of_one_row(result, its_facts)]
        if blocks:
            name, title = f"row-{result.row.name}", f"Row: {result.row.label}"
            state = f"Runs finished: {counts(result)}."
            yield Section(name, title, [state, *blocks], on_page_only=True)


def _problems(facts) -> Iterator[Block]:
    problems = list(dict.fromkeys(text for _, run in facts for text in run.problems))
    if problems:
        yield "These files could not be read; the report is made from the others:"
        yield Points(problems)


def _environment(facts) -> Iterator[Block]:
    yield tables.of_environments(run for _, run in facts) or "No run has begun."


def _commands(experiment: Experiment, facts: _Facts) -> Iterator[Block]:
    yield "The whole experiment, and this report again from its run folders:"
    yield Commands([experiment_command(experiment), rebuild_command(experiment)])
    yield "Each run by itself:"
    yield Commands(planned_commands(experiment))
    calls = [
        f"{command}  # {row.row.name}, seed {run.result.seed}"
        for row, run in facts
        for command in run.commands
    ]
    if calls:
        yield "The calls that made the runs, as their records have them:"
        yield Commands(calls)


def planned_commands(experiment: Experiment) -> list[str]:
    """The commands that train each run by itself."""
    of_row = sorted(experiment.trials(), key=lambda trial: experiment.table.rows.index(trial.row))
    return [shlex.join([*_PROGRAM, *_words(experiment, trial)]) for trial in of_row]


def _words(experiment, trial):
    try:
        # Behind the interpreter, -m and the package.
        return process.command(experiment, trial)[3:]
    except ValueError:
        # A file of the user's code has gone.
        own = {"seed": trial.seed, "run_dir": str(experiment.run_dir(trial))}
        return ["train", *train_flags.texts({**experiment.fields(trial.row), **own})]


def experiment_command(experiment: Experiment) -> str:
    """The command that runs the experiment."""
    table, budget = experiment.table, experiment.budget
    given = dict(sorted(experiment.given.items()))
    flags: dict[str, Any] = {"budget": budget.name, "steps": budget.steps}
    words = [table.name] if table.name in TABLES and table.source else []
    if not words:
        flags["table"] = f"{table.name}.toml"
    if experiment.seeds == tuple(range(len(experiment.seeds))):
        flags["seeds"] = len(experiment.seeds)
    flags |= {name: given.pop(name) for name in _OWN_FLAGS if name in given}
    flags |= {"train_flags": shlex.join(train_flags.texts(given)) or None}
    flags["output_dir"] = str(experiment.folder)
    return shlex.join([*_PROGRAM, "experiments", *words, *train_flags.texts(flags)])


def rebuild_command(experiment: Experiment) -> str:
    """The command that writes the report again."""
    return shlex.join([*_PROGRAM, "experiments", "report", f"--output_dir={experiment.folder}"])
