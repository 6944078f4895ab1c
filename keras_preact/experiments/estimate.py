"""The time and memory of an experiment's runs, from a short measurement of each kind."""

import dataclasses
import datetime
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

from keras_preact.experiments import process, results
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.process import Slot
from keras_preact.support import memory
from keras_preact.support.errors import RunError
from keras_preact.support.text import aligned
from keras_preact.training.steps import schedules

# Differences that change no figure: rows that differ in these are measured once.
_SAME_COST = ("shortcut_arguments", "seed", "run_dir", "learning_rate", "weight_decay", "momentum")
Measure = Callable[[Mapping[str, object]], dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The cost of a run that has not begun.

    Args:
        seconds: of the whole run.
        memory_bytes: the most that it will have.
        train_steps: its length.
    """

    seconds: float
    memory_bytes: float
    train_steps: int


class MeasurementError(RunError):
    """A measurement failed."""


def measure_in_process(fields: Mapping[str, object]) -> dict[str, float]:
    """Measures in a process of its own, which leaves the memory of others out.

    Raises:
        MeasurementError: if the process fails; with its last words.
    """
    done = subprocess.run(
        [sys.executable, "-m", "keras_preact.experiments.stopwatch"],
        input=json.dumps(dict(fields)),
        env=process.environment(Slot()),
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == 0:
        return json.loads(done.stdout.rstrip().rpartition("\n")[2])
    *_, words = ["no message", *done.stderr.strip().splitlines()]
    raise MeasurementError(f"The measurement ended with code {done.returncode}: {words}")


def estimate(experiment: Experiment, row, figures: Mapping[str, float]) -> Estimate:
    """Adds up a run of a row.

    Args:
        experiment: of the run.
        row: of its table.
        figures: of `stopwatch.measure`.
    """
    config = experiment.config(Trial(row, 0))
    batch, images = config.global_batch_size, figures["train_images"]
    train_steps = schedules.make_schedule(config, images).train_steps
    evaluations = -(-train_steps * batch // (images * config.eval_epochs))
    eval_batches = evaluations * -(-figures["eval_images"] // batch)
    test_batches = -(-figures["test_images"] // batch)
    records = process.records(experiment, Trial(row, 0), train_steps) * figures["record_seconds"]
    records += figures["first_record_seconds"]
    seconds = (
        figures["start_seconds"]
        + train_steps * figures["step_seconds"]
        + figures["trace_evaluation_seconds"]
        + (eval_batches + test_batches) * figures["eval_batch_seconds"]
        + records
    )
    return Estimate(seconds, figures["memory_bytes"], train_steps)


def table(
    experiment: Experiment,
    trials: Sequence[Trial],
    say: Callable[[str], None],
    parallel_runs: int = 1,
    measure: Measure = measure_in_process,
) -> str:
    """Lists the rows with the state of their runs, and the estimated time and memory.

    Args:
        experiment: of the trials.
        trials: to estimate.
        say: receives a line before each measurement.
        parallel_runs: at a time.
        measure: takes the fields of a run, and returns figures.
    """
    measured, lines, total = {}, [], 0.0
    for row in experiment.table.rows:
        states = [
            results.of_run(experiment.run_dir(trial), trial.seed).state
            for trial in trials
            if trial.row.name == row.name
        ]
        if not states:
            continue
        left = sum(state not in ("finished", "diverged") for state in states)
        fields = experiment.fields(row)
        key = json.dumps({n: v for n, v in fields.items() if n not in _SAME_COST}, default=str)
        if left and key not in measured:
            say(f"Measuring {row.label}")
            measured[key] = measure({**fields, "seed": experiment.seeds[0]})
        if not left:
            lines.append((row.name, f"{len(states)} of {len(states)} done", "", "", "", ""))
            continue
        found = estimate(experiment, row, measured[key])
        total += left * found.seconds
        lines.append(
            (
                row.name,
                f"{left} of {len(states)} to do",
                f"{found.train_steps:,}",
                f"{measured[key]['step_seconds']:.3f}",
                in_words(found.seconds),
                memory.in_words(found.memory_bytes),
            )
        )
    head = ("row", "runs", "steps", "s a step", "a run", "memory")
    whole = f"All runs: {in_words(total)} one after the other"
    if parallel_runs > 1:
        whole += f"; {parallel_runs} at a time share this machine, which was measured as a whole"
    return f"{aligned(head, lines, numbers_from=2)}\n{whole}."


def in_words(seconds: float) -> str:
    """A duration as in "2 days, 3:04:05"."""
    return str(datetime.timedelta(seconds=round(seconds)))
