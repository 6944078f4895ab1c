"""Run folders with curves made by hand: what train.py leaves, without training."""

import csv
import dataclasses
import io
from collections.abc import Iterable

import numpy as np

from keras_preact.data import DatasetInfo
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.table import Table
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.reporting import metrics_file, propagation_file
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.schedules import make_schedule

PLAN = ComputePlan("one_device", ("CPU:0",), 1, "mixed_bfloat16", False, {})
_UNITS = tuple(f"stage{stage}_unit{unit}" for stage in (1, 2, 3) for unit in range(1, 7))
_EVALUATIONS = 20


def of_rows(table: Table, names: Iterable[str]) -> Table:
    """A table of some of its rows, with the claims on them alone."""
    names = set(names)
    rows = tuple(row for row in table.rows if row.name in names)
    claims = tuple(c for c in table.claims if {c.better, c.worse} <= names)
    return dataclasses.replace(table, rows=rows, claims=claims)


def info(config: TrainConfig, test_count: int = 0) -> DatasetInfo:
    """Facts of a data set as large as CIFAR-10."""
    return DatasetInfo(
        config.dataset,
        tuple(f"class {n}" for n in range(10)),
        (32, 32, 3),
        50_000 - (5000 if test_count else 0),
        5000 if test_count else 10_000,
        (120.0,) * 3,
        (60.0,) * 3,
        1.0,
        test_count=test_count,
    )


def run(
    experiment: Experiment,
    trial: Trial,
    error: float,
    *,
    part: float = 1.0,
    evaluations: int = _EVALUATIONS,
    records: int = 3,
    test_count: int = 0,
    plan: ComputePlan = PLAN,
) -> RunFolder:
    """Writes the folder of a run.

    Args:
        experiment: of the run.
        trial: the run.
        error: test error at its end, 0 to 1.
        part: of its steps that it has taken.
        evaluations: number of rows of metrics.csv at the end.
        records: number of those of propagation.csv.
        test_count: images of a test split, beside 5,000 for validation.
        plan: of its call.
    """
    config = experiment.config(trial)
    data = info(config, test_count)
    folder = RunFolder(experiment.run_dir(trial))
    folder.begin(config, data, plan)
    last = make_schedule(config, data.train_count).train_steps
    ends = np.linspace(0, last, evaluations + 1).round().astype(int)[1:]
    random = np.random.default_rng([trial.seed, len(trial.row.name), *trial.row.name.encode()])
    rows = []
    for step in ends[ends <= part * last]:
        left = np.exp(-5 * step / last)
        drop = 1 if step < last / 2 else 0.3
        noise = random.normal(0, 0.01 * drop)
        now = error if step == last else np.clip(error + 0.5 * left + 0.03 * drop + noise, 0, 0.9)
        training = np.clip(now - 0.05 * (1 - left) + 0.1 * left, 0.002, 0.92)
        rows.append(row(int(step), training, now))
    write_metrics(folder, rows)
    write_records(folder, np.linspace(0, part * last, records).round().astype(int), random)
    return folder


def row(step: int, train_error: float, eval_error: float, loss: float = 1.0) -> metrics_file.Row:
    return metrics_file.Row(
        step, step / 390, loss, 1 - train_error, loss, 1 - eval_error, 0.1, 900.0, step / 7.0,
        0.99, 0.5,
    )  # fmt: skip


def write_metrics(folder: RunFolder, rows: list[metrics_file.Row]) -> None:
    if not rows:
        return
    text = io.StringIO()
    names = [name for name in vars(rows[0]) if getattr(rows[0], name) is not None]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([getattr(each, name) for name in names] for each in rows)
    folder.metrics.write_text(text.getvalue())


def write_records(folder: RunFolder, steps: np.ndarray, random: np.random.Generator) -> None:
    if not len(steps):
        return
    lines = [",".join(propagation_file.COLUMNS)]
    for number, step in enumerate(steps):
        norms = np.geomspace(1, 10 ** random.uniform(-3, -1), len(_UNITS))[::-1] / (1 + number)
        lines += [
            f"{step},{unit},{norm:.6g},{norm / 2:.6g},{norm / 3:.6g},0.1,{0.2 / (1 + number)},0,1"
            for unit, norm in zip(_UNITS, norms, strict=True)
        ]
    folder.propagation.write_text("\n".join(lines) + "\n")


def write_scalars(folder: RunFolder, errors: dict[int, float]) -> None:
    """Writes training errors by step as TensorBoard's scalars."""
    log = metrics_file.MetricsLog(folder.metrics, folder.tensorboard, 0)
    for step, error in errors.items():
        log.train(step, loss=1.0, accuracy=1 - error)
    log.close()
