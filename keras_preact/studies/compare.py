"""The study of several runs: learning curves, final errors and gradients."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from keras_preact.analysis import backward
from keras_preact.studies import curve_figures, gradient_figures
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.curve_figures import RunCurves
from keras_preact.studies.networks import describe, kinds, of_run
from keras_preact.studies.output import Report, csv_bytes
from keras_preact.studies.page import Table
from keras_preact.support.console import say
from keras_preact.support.paths import usable
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder


def check(run_dirs: Sequence[str]) -> None:
    """Raises ValueError if there are no runs, one is given twice, or one has no evaluation."""
    paths = {usable(run_dir, "RUN").resolve() for run_dir in run_dirs}
    if not run_dirs or len(paths) < len(run_dirs):
        raise ValueError(
            "compare needs the folders of one or more runs, each once, as in compare runs/a "
            f"runs/b. Received: {' '.join(run_dirs) or 'none'}"
        )
    for run_dir in run_dirs:
        folder = RunFolder(run_dir)
        folder.read()
        if not metrics_file.read(folder.metrics):
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
    rows = {run_dir: metrics_file.read(RunFolder(run_dir).metrics) for run_dir in run_dirs}
    curves = _curves(run_dirs, rows)
    gradients, measured_on = [], {}
    for run_dir, run in zip(run_dirs, curves, strict=True):
        say(f"Measuring {run.label}")
        network = of_run(run_dir, config.checkpoint, config.data_dir)
        images = network.training_images(config.images, config.seed)
        gradients.append((run.label, backward(network.model, *images)))
        measured_on[network.describe_images(len(images[0]))] = None
    names = "; ".join(run.label for run in curves)
    figures = [*curve_figures.figures(curves), gradient_figures.beside(gradients)]
    return Report(
        title=f"Runs compared: {names}",
        facts={
            "Runs": ", ".join(run_dirs),
            "Gradients": f"of the {config.checkpoint} checkpoint, on {'; '.join(measured_on)}",
        },
        figures=[figure.of(names) for figure in figures],
        tables=[_final(curves, rows.values())],
        csv=csv_bytes(_parts(curves, rows), "run"),
        summary=[
            f"  {run.label}: evaluation error {run.eval_error[-1]:.2%}, training error "
            f"{run.train_error[-1]:.2%} after {run.steps[-1]:,} steps"
            for run in curves
        ],
    )


def _curves(run_dirs, rows):
    configs = [RunFolder(run_dir).read()[0] for run_dir in run_dirs]
    labels = [describe(config) for config in configs]
    counts = Counter(labels)
    return [
        RunCurves(
            # Runs of one name are told apart by their folders.
            label=label if counts[label] == 1 else f"{label} ({run_dir})",
            kind=kind,
            depth=config.depth,
            steps=np.array([row.step for row in rows[run_dir]]),
            train_error=np.array([1 - row.train_accuracy for row in rows[run_dir]]),
            eval_error=np.array([1 - row.eval_accuracy for row in rows[run_dir]]),
        )
        for run_dir, config, label, kind in zip(
            run_dirs, configs, labels, kinds(configs), strict=True
        )
    ]


def _final(curves, rows):
    cells = [
        (
            run.label,
            f"{run.steps[-1]:,}",
            f"{100 * run.train_error[-1]:.2f}",
            f"{100 * run.eval_error[-1]:.2f}",
            f"{100 * run.eval_error.min():.2f}",
            f"{its_rows[-1].images_per_second:,.0f}",
        )
        for run, its_rows in zip(curves, rows, strict=True)
    ]
    head = ("run", "steps", "training error (%)", "evaluation error (%)", "lowest (%)", "images/s")
    return Table("At the end", head, cells, "After the last evaluation of each run.")


def _parts(curves, rows):
    every = [row for its_rows in rows.values() for row in its_rows]
    # Runs differ in others, by their labels and by the version that wrote them.
    shared = [
        field.name
        for field in dataclasses.fields(metrics_file.Row)
        if all(getattr(row, field.name) is not None for row in every)
    ]
    for run, (run_dir, its_rows) in zip(curves, rows.items(), strict=True):
        columns = {name: np.array([getattr(row, name) for row in its_rows]) for name in shared}
        yield {"network": run.label}, [run_dir] * len(its_rows), columns
