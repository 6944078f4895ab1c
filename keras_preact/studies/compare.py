"""The study of several runs: learning curves, final errors and gradients.

Runs that differ in their seeds alone are one configuration: its curves are their means.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from keras_preact.analysis import backward
from keras_preact.studies import curve_figures, gradient_figures, groups
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.curve_figures import GroupCurves, mean_and_std
from keras_preact.studies.groups import Group, Run
from keras_preact.studies.networks import kinds, of_run, parts
from keras_preact.studies.output import Report, csv_bytes
from keras_preact.studies.page import Table
from keras_preact.support.console import say
from keras_preact.support.paths import usable
from keras_preact.training.reporting import metrics_file

# More are counted in the title and listed in a table.
_MOST_NAMED = 2


def check(run_dirs: Sequence[str]) -> None:
    """Raises ValueError if there are no runs, one is given twice, or one has no evaluation."""
    paths = {usable(run_dir, "RUN").resolve() for run_dir in run_dirs}
    if not run_dirs or len(paths) < len(run_dirs):
        raise ValueError(
            "compare needs the folders of one or more runs, each once, as in compare runs/a "
            f"runs/b. Received: {' '.join(run_dirs) or 'none'}"
        )
    for run_dir in run_dirs:
        if not groups.read(run_dir).rows:
            raise ValueError(
                f"A run to compare must have been evaluated. Received: {run_dir}, with no row in "
                "metrics.csv"
            )


def study(run_dirs: Sequence[str], config: AnalysisConfig) -> Report:
    """Compares runs.

    Args:
        run_dirs: their folders.
        config: of the analysis.
    """
    found = groups.of_runs([groups.read(run_dir) for run_dir in run_dirs])
    curves = curves_of(found)
    gradients, measured_on = [], {}
    for group in found:
        say(f"Measuring {group.label}")
        network = of_run(group.runs[0].folder, config.checkpoint, config.data_dir)
        images = network.training_images(config.images, config.seed)
        gradients.append((group.short_label, backward(network.model, *images)))
        measured_on[network.describe_images(len(images[0]))] = None
    of_first = ""
    if len(run_dirs) > len(found):
        of_first = "Of each configuration, the first run is measured."
    names = "; ".join(group.short_label for group in found)
    figures = [*curve_figures.figures(curves), gradient_figures.beside(gradients, of_first)]
    return Report(
        title=f"Runs compared: {_title(found, run_dirs)}",
        facts={
            "Runs": ", ".join(run_dirs)
            if len(run_dirs) <= _MOST_NAMED
            else f"{len(run_dirs)} of {_count(found)}; the last table has their folders",
            **_shared(found),
            "Gradients": f"of the {config.checkpoint} checkpoint, on {'; '.join(measured_on)}",
        },
        figures=[figure.of(names) for figure in figures],
        tables=[_final(found, curves), _runs(found)],
        csv=csv_bytes(_parts(found), "run"),
        summary=[f"  {_summary(*each)}" for each in zip(found, curves, strict=True)],
    )


def curves_of(found: Sequence[Group]) -> list[GroupCurves]:
    """Returns the learning curves of groups, from their first evaluations to the last shared."""
    return [
        GroupCurves(
            label=group.short_label,
            kind=", ".join(filter(None, (kind, group.difference))),
            depth=group.config.depth,
            steps=np.array(group.steps),
            train_error=_of_rows(group, lambda row: 1 - row.train_accuracy),
            eval_error=_of_rows(group, lambda row: 1 - row.eval_accuracy),
            left_out=group.left_out,
        )
        for group, kind in zip(found, kinds([group.config for group in found]), strict=True)
    ]


def _of_rows(group, value: Callable[[metrics_file.Row], float]):
    """A figure of all evaluations that runs share, (runs, evaluations)."""
    return np.array([[value(row) for row in group.rows(run)] for run in group.runs])


def _shared(found):
    """The parts of their names that configurations share, which legends leave out."""
    every = [parts(group.config) for group in found]
    shared = [part for part in every[0] if all(part in each for each in every)]
    return {"All are": ", ".join(shared)} if shared and len(found) > 1 else {}


def _title(found, run_dirs):
    if len(found) <= _MOST_NAMED:
        return " and ".join(group.short_label for group in found)
    return f"{_count(found)}, {len(run_dirs)} runs"


def _count(found):
    return f"{len(found)} configuration{'s' if len(found) > 1 else ''}"


def _summary(group, curves):
    runs = f" ({curves.runs} runs)" if curves.runs > 1 else ""
    evaluation, training = (
        _shown(errors[:, -1], "{:.2%}") for errors in (curves.eval_error, curves.train_error)
    )
    return (
        f"{group.label}{runs}: evaluation error {evaluation}, training error {training} after "
        f"{curves.steps[-1]:,} steps"
    )


def _shown(values, form="{:.2f}", factor=1):
    """The mean of values of runs, with the standard deviation where there are several."""
    mean, std = mean_and_std(factor * np.asarray(values))
    plus_minus = f" \N{PLUS-MINUS SIGN} {form.format(std)}" if len(values) > 1 else ""
    return form.format(mean) + plus_minus


def _final(found, curves):
    head = ["configuration", "runs", "step", "training error (%)", "evaluation error (%)"]
    head.append("median (%)")
    tested = all(run.test_accuracy is not None for group in found for run in group.runs)
    cells = []
    for group, its_curves in zip(found, curves, strict=True):
        last = 100 * its_curves.eval_error[:, -1]
        row = [group.label, len(group.runs), f"{its_curves.steps[-1]:,}"]
        row += [_shown(its_curves.train_error[:, -1], factor=100), _shown(last)]
        row.append(f"{np.median(last):.2f}")
        if tested:
            row.append(_shown([100 * (1 - run.test_accuracy) for run in group.runs]))
        cells.append(row)
    caption = "At the last evaluation that all runs of a configuration have."
    if any(len(group.runs) > 1 for group in found):
        caption += (
            " Mean \N{PLUS-MINUS SIGN} standard deviation (n \N{MINUS SIGN} 1) over runs that "
            "differ in their seeds alone; the median is that of the evaluation error."
        )
    return Table("At the end", [*head, *["test error (%)"] * tested], cells, caption)


def _runs(found):
    head = ["folder", "configuration", "seed", "steps", "training error (%)"]
    head += ["evaluation error (%)", "lowest (%)", "images/s"]
    tested = any(run.test_accuracy is not None for group in found for run in group.runs)
    cells = [
        [*_cells(run, group.label), *[_test_error(run)] * tested]
        for group in found
        for run in group.runs
    ]
    caption = "After the last evaluation of each run."
    return Table("Runs", [*head, *["test error (%)"] * tested], cells, caption)


def _cells(run: Run, label: str):
    last = run.rows[-1]
    lowest = min(1 - row.eval_accuracy for row in run.rows)
    errors = (f"{100 * e:.2f}" for e in (1 - last.train_accuracy, 1 - last.eval_accuracy, lowest))
    speed = f"{last.images_per_second:,.0f}"
    return [run.folder, label, run.config.seed, f"{last.step:,}", *errors, speed]


def _test_error(run):
    return "" if run.test_accuracy is None else f"{100 * (1 - run.test_accuracy):.2f}"


def _parts(found):
    every = [row for group in found for run in group.runs for row in run.rows]
    # Runs differ in others, by their labels and by the version that wrote them.
    shared = [
        field.name
        for field in dataclasses.fields(metrics_file.Row)
        if all(getattr(row, field.name) is not None for row in every)
    ]
    for group in found:
        for run in group.runs:
            columns = {name: np.array([getattr(row, name) for row in run.rows]) for name in shared}
            common = {"network": group.label, "seed": run.config.seed}
            yield common, [run.folder] * len(run.rows), columns
