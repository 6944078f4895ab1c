"""An experiment: a table under a budget, its runs and their folders."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from keras_preact.experiments import train_flags
from keras_preact.experiments.budgets import Budget
from keras_preact.experiments.table import Claim, Published, Row, Table
from keras_preact.studies.networks import describe
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.training import TrainConfig
from keras_preact.training.run_folder import learned

_WHAT = "the record of an experiment"
RECORD = "experiment.json"
PAGE, MARKDOWN = "index.html", "report.md"


class Trial(NamedTuple):
    """One run of an experiment."""

    row: Row
    seed: int


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table under a budget.

    Runs lie in FOLDER/runs/NETWORK-DIGEST/seed-SEED, with a digest of all that changes what is
    learned: tables that share a row share its runs.

    Args:
        table: its rows.
        budget: length of the runs.
        seeds: of each row.
        folder: of all experiments beside each other.
        given: fields of `TrainConfig` for all rows, over those of rows and budget.
    """

    table: Table
    budget: Budget
    seeds: tuple[int, ...]
    folder: epath.Path
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the report's folder: "table1-short-5000"."""
        steps = "" if self.budget.steps is None else f"-{self.budget.steps}"
        return f"{self.table.name}-{self.budget.name}{steps}"

    @property
    def report_folder(self) -> epath.Path:
        return self.folder / "reports" / self.name

    def trials(self) -> Iterator[Trial]:
        """All runs: every row with the first seed, then every row with the next."""
        for seed in self.seeds:
            for row in self.table.rows:
                yield Trial(row, seed)

    def fields(self, row: Row) -> dict[str, Any]:
        """The fields of `TrainConfig` that row, budget and user set; of the run, not its call."""
        return train_flags.merged(row.given(), self.budget.given(), self.given)

    def config(self, trial: Trial) -> TrainConfig:
        """The configuration of a run.

        Raises:
            ValueError: as `TrainConfig` does.
        """
        fields = {**self.fields(trial.row), "seed": trial.seed}
        return TrainConfig(**{**fields, "run_dir": str(self.run_dir(trial))})

    def row_folder(self, row: Row) -> epath.Path:
        """The folder of all runs of a row."""
        config = TrainConfig(**{**self.fields(row), "seed": 0, "run_dir": None})
        network = re.sub(r"[^a-z0-9]+", "-", describe(config).lower()).strip("-")[:60]
        return self.folder / "runs" / f"{network}-{_digest(config)}"

    def run_dir(self, trial: Trial) -> epath.Path:
        return self.row_folder(trial.row) / f"seed-{trial.seed}"


def _digest(config: TrainConfig) -> str:
    """Eight hexadecimal digits of what changes what is learned, but for the seed."""
    # Fields at their defaults are left out, so that a new one changes no digest.
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    fields = {
        name: value
        for name, value in learned(config).items()
        if name != "seed" and value != defaults.get(name)
    }
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def write(experiment: Experiment) -> None:
    """Writes the record of an experiment, from which `read` makes it again."""
    record = {
        "table": dataclasses.asdict(experiment.table),
        "budget": dataclasses.asdict(experiment.budget),
        "seeds": experiment.seeds,
        "given": dict(experiment.given),
    }
    experiment.report_folder.mkdir(parents=True, exist_ok=True)
    text = f"{json.dumps(record, indent=2)}\n"
    write_whole(experiment.report_folder / RECORD, text.encode())


@dataclasses.dataclass(frozen=True)
class _Record:
    table: dict
    budget: Budget
    seeds: tuple[int, ...]
    given: dict


def read(folder: epath.Path, report: epath.PathLike) -> Experiment:
    """Reads the record of an experiment.

    Args:
        folder: of all experiments.
        report: folder of the experiment's report.

    Raises:
        ValueError: if there is no such record, or it is damaged; names file and field.
    """
    path = epath.Path(report) / RECORD
    record = records.read_json(path, _Record, _WHAT)
    with records.named(path, _WHAT):
        table = _table(record.table)
        TrainConfig.from_json({**record.given}, "given") if record.given else None
    return Experiment(table, record.budget, record.seeds, folder, record.given)


def _table(values):
    values = dict(values)
    rows = tuple(
        dataclasses.replace(
            records.typed({**row, "published": None}, Row, f"table.rows[{number}]"),
            published=row["published"]
            and records.typed(row["published"], Published, f"table.rows[{number}].published"),
        )
        for number, row in enumerate(records.typed(values.pop("rows"), list, "table.rows"))
    )
    claims = tuple(
        records.typed(claim, Claim, f"table.claims[{number}]")
        for number, claim in enumerate(records.typed(values.pop("claims"), list, "table.claims"))
    )
    return Table(**values, rows=rows, claims=claims)
