"""The results of an experiment, read from its run folders."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.table import Row
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.training import TrainConfig, user_code
from keras_preact.training.held_out import HeldOutResult
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps import schedules

STATES = ("missing", "unfinished", "failed", "diverged", "damaged", "finished")


@dataclasses.dataclass(frozen=True)
class Ending:
    """How a run of an experiment ended that did not finish; lies beside its folder.

    Args:
        state: "diverged", which is a result and not tried again, or "failed".
        exit_code: of the process.
        message: its last words.
    """

    state: str
    exit_code: int
    message: str


@dataclasses.dataclass(frozen=True)
class SeedResult:
    """One run.

    Args:
        seed: of the run.
        folder: of the run; it need not exist.
        state: one of `STATES`.
        steps: taken, as far as evaluations tell.
        train_steps: length of the run; None where it is missing.
        rows: its evaluations, in order.
        test_error: of the final weights on the test images, 0 to 1; None unless finished.
        test_top5_error: the same; None where it was not measured.
        test_images: number of them; None unless finished.
        message: the last words of a run that diverged or failed; the damage to its files.
    """

    seed: int
    folder: RunFolder
    state: str
    steps: int = 0
    train_steps: int | None = None
    rows: tuple[metrics_file.Row, ...] = ()
    test_error: float | None = None
    test_top5_error: float | None = None
    test_images: int | None = None
    message: str = ""


@dataclasses.dataclass(frozen=True)
class RowResult:
    """The runs of a row.

    Args:
        row: of the table.
        config: of its first run, as `planned`.
        seeds: a result for each seed of the experiment.
    """

    row: Row
    config: TrainConfig
    seeds: tuple[SeedResult, ...]

    def of_state(self, *states: str) -> list[SeedResult]:
        return [result for result in self.seeds if result.state in states]


def collect(experiment: Experiment) -> list[RowResult]:
    """Reads the results of all rows from their run folders, those that are damaged as such."""
    return [
        RowResult(
            row,
            planned(experiment, row),
            tuple(of_run(experiment.run_dir(Trial(row, s)), s) for s in experiment.seeds),
        )
        for row in experiment.table.rows
    ]


def planned(experiment: Experiment, row: Row) -> TrainConfig:
    """The configuration of a row's first run, without code of the user's that has gone."""
    try:
        return experiment.config(Trial(row, experiment.seeds[0]))
    except ValueError:
        return TrainConfig(**without_code(experiment.fields(row)))


def without_code(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration but for those that may name code of the user's."""
    names = (*user_code.FIELDS, "shortcut_arguments")
    return {name: value for name, value in fields.items() if name not in names}


def of_run(run_dir: epath.Path, seed: int) -> SeedResult:
    """Reads the result of a run from its folder; one whose records are damaged is "damaged"."""
    try:
        return _of_run(run_dir, seed)
    except (ValueError, OSError) as error:
        return SeedResult(seed, RunFolder(run_dir), "damaged", message=str(error))


def _of_run(run_dir, seed):
    folder = RunFolder(run_dir)
    if not folder.holds_a_run():
        ending = read_ending(run_dir)
        if ending is None:
            return SeedResult(seed, folder, "missing")
        return SeedResult(seed, folder, ending.state, message=ending.message)
    config, info = folder.read()
    rows = tuple(metrics_file.read(folder.metrics))
    train_steps = schedules.make_schedule(config, info.train_count).train_steps
    steps = rows[-1].step if rows else 0
    known = {"steps": steps, "train_steps": train_steps, "rows": rows}
    if steps < train_steps or (info.test_count and not folder.test.exists()):
        ending = read_ending(run_dir)
        state, message = (ending.state, ending.message) if ending else ("unfinished", "")
        return SeedResult(seed, folder, state, **known, message=message)
    scores, images = rows[-1].scores, info.eval_count
    if info.test_count:
        what = "the result on the test split"
        result = records.read_json(folder.test, HeldOutResult, what)
        scores, images = result.scores, result.images
        with records.named(folder.test, what):
            records.typed(scores.get("accuracy"), float, "scores.accuracy")
    top5 = scores.get("top5_accuracy")
    return SeedResult(
        seed,
        folder,
        "finished",
        **known,
        test_error=1 - scores["accuracy"],
        test_top5_error=None if top5 is None else 1 - top5,
        test_images=images,
    )


def ending_path(run_dir: epath.Path) -> epath.Path:
    """The file that tells how a run ended; beside its folder, which is train.py's own."""
    return run_dir.parent / f"{run_dir.name}.ending.json"


def read_ending(run_dir: epath.Path) -> Ending | None:
    """Reads how a run ended; None for a run that finished, goes on, or has not begun."""
    path = ending_path(run_dir)
    return records.read_json(path, Ending, "the ending of a run") if path.exists() else None


def write_ending(run_dir: epath.Path, ending: Ending) -> None:
    """Writes how a run ended beside its folder."""
    text = f"{json.dumps(dataclasses.asdict(ending), indent=2)}\n"
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    write_whole(ending_path(run_dir), text.encode())


def forget_ending(run_dir: epath.Path) -> None:
    """Removes the file that tells how a run ended, before it is tried again."""
    ending_path(run_dir).unlink(missing_ok=True)
