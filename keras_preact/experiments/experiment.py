"""An experiment: a table under a budget, its runs and their folders."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from keras_preact.experiments import kept_code, train_flags
from keras_preact.experiments.budgets import Budget
from keras_preact.experiments.table import Claim, Published, Row, Table, check_name
from keras_preact.studies.networks import describe
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.training import TrainConfig
from keras_preact.training.run_folder import learned

_WHAT = "the record of an experiment"
# Letters of the name of a report's folder.
_MOST_LETTERS = 120
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
        row_folders: names of the rows' folders in FOLDER/runs by the rows' names, where a record
            has them; the others follow from the configurations.
    """

    table: Table
    budget: Budget
    seeds: tuple[int, ...]
    folder: epath.Path
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    row_folders: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the report's folder: "table1-short-5000", or "table2-short-5000-depth-56"."""
        steps = "" if self.budget.steps is None else f"-{self.budget.steps}"
        own = learned(TrainConfig())
        changes = [f"-{name}-{value}" for name, value in self.given.items() if name in own]
        text = f"{self.table.name}-{self.budget.name}{steps}{''.join(changes)}"
        return re.sub(r"[^A-Za-z0-9._-]+", "_", text)[:_MOST_LETTERS]

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
        return self.folder / "runs" / (self.row_folders.get(row.name) or self._row_folder(row))

    def _row_folder(self, row):
        config = TrainConfig(**{**self.fields(row), "seed": 0, "run_dir": None})
        network = re.sub(r"[^a-z0-9]+", "-", describe(config).lower()).strip("-")[:60]
        return f"{network}-{_digest(config)}"

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


def write(experiment: Experiment) -> Experiment:
    """Writes the record of an experiment, from which `read` makes it again.

    Returns:
        The experiment with the seeds of an earlier record beside its own.

    Raises:
        ValueError: if the earlier record is damaged, or of other rows under the same name.
    """
    path = experiment.report_folder / RECORD
    if path.exists():
        earlier = read(experiment.folder, experiment.report_folder)
        if list(map(_of_any_version, earlier.table.rows)) != [*experiment.table.rows]:
            raise ValueError(
                f"{path} is the record of other rows, of a table of the same name. Give another "
                "--output_dir, or the table another name."
            )
        seeds = tuple(sorted({*earlier.seeds, *experiment.seeds}))
        experiment = dataclasses.replace(experiment, seeds=seeds)
    record = {
        "table": dataclasses.asdict(experiment.table),
        "budget": dataclasses.asdict(experiment.budget),
        "seeds": experiment.seeds,
        "given": dict(experiment.given),
        "row_folders": {row.name: experiment.row_folder(row).name for row in experiment.table.rows},
        "code": {
            row.name: kept_code.keep(experiment.config(Trial(row, 0)), _code_folder(path, row.name))
            for row in experiment.table.rows
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may begin parts of an experiment at the same time.
    write_whole(path, f"{json.dumps(record, indent=2)}\n".encode(), rivals=True)
    return experiment


@dataclasses.dataclass(frozen=True)
class _Record:
    table: dict
    budget: Budget
    seeds: tuple[int, ...]
    given: dict
    row_folders: dict[str, str]
    code: dict


def _code_folder(path, row):
    return path.parent / kept_code.FOLDER / row


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
        given = train_flags.read(train_flags.texts(record.given))
        table = _table(record.table)
        for name in (*record.row_folders.values(), *record.code):
            check_name("the name of a row's folder", name)
        rows = tuple(_of_version(row, record.code.get(row.name, {}), path) for row in table.rows)
        table = dataclasses.replace(table, rows=rows)
    return Experiment(table, record.budget, record.seeds, folder, given, record.row_folders)


def _of_version(row, kept, path):
    """The row with the version of the user's code of which the record has a copy."""
    code = kept_code.recall(kept, _code_folder(path, row.name), f"code.{row.name}")
    return dataclasses.replace(row, flags={**row.flags, **code})


def _of_any_version(row):
    """The row as a table has it, whose file may have changed since."""
    return dataclasses.replace(row, flags=kept_code.of_any_version(row.flags))


def _table(values):
    rows = records.typed(values.get("rows"), list, "table.rows")
    claims = records.typed(values.get("claims"), list, "table.claims")
    texts = {name: values.get(name, "") for name in ("name", "title", "source", "setting")}
    for name, text in texts.items():
        records.typed(text, str, f"table.{name}")
    return Table(
        **texts,
        rows=tuple(_row(row, f"table.rows[{number}]") for number, row in enumerate(rows)),
        claims=tuple(records.typed(claim, Claim, "table.claims") for claim in claims),
        seeds=records.typed(values.get("seeds"), tuple[int, ...] | None, "table.seeds"),
    )


def _row(values, where):
    values = records.typed(values, dict, where)
    published = values.get("published")
    if published is not None:
        published = records.typed(published, Published, f"{where}.published")
    row = records.typed({**values, "published": None}, Row, where)
    return dataclasses.replace(row, published=published)
