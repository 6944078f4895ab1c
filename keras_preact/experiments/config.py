"""The flags of experiments and their rules."""

import dataclasses
import fnmatch
import re
import shlex
from collections.abc import Sequence

from keras_preact.experiments import own_table, train_flags
from keras_preact.experiments.budgets import BUDGETS, budget
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.table import Table
from keras_preact.support import options
from keras_preact.support.choices import one_of
from keras_preact.support.options import option
from keras_preact.support.paths import usable
from keras_preact.support.text import shown

REPORT = "report"
MOST_SEEDS = 1000
_SHARD = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclasses.dataclass(frozen=True)
class ExperimentsConfig:
    """One call of experiments. The fields are flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule, or values contradict each other.
    """

    table: str | None = option("table", "a table of your own, a TOML file")
    rows: tuple[str, ...] | None = option(
        "table", "names of rows, or patterns as in resnet110_*, separated by commas; default: all"
    )
    budget: str | None = option(
        "table",
        "paper: the full recipe, five seeds; short: its schedule scaled to --steps; early: its "
        "first --steps; smoke: a few steps on the embedded digits",
        None,
        BUDGETS,
    )
    steps: int | None = option(
        "table", "steps of a run; default: 5000 for short, 300 for early, 3 for smoke"
    )
    seeds: int | None = option(
        "table",
        "number of runs of each row, with the seeds 0, 1, ...; default: the table's, else 5 for "
        "paper, 3 for short, 1 for early and smoke",
    )

    data_dir: str | None = option("training", "as in train.py")
    validation_images: int | None = option(
        "training",
        "training images to evaluate on while training; the test images are then measured once, "
        "at the end. 5000 is the split of the first paper",
    )
    train_flags: str = option(
        "training", "flags of train.py for all rows, as in '--precision=mixed_bfloat16'", ""
    )

    output_dir: str = option("output", "folder of runs and reports", "experiments")
    dry_run: bool = option(
        "output",
        "list the runs with time and memory, estimated from a short measurement of each kind",
        False,
    )

    parallel_runs: int = option("machine", "runs at a time on this machine", 1)
    shard: str | None = option(
        "machine", "the part of the runs that this process takes, as in 2/4: the second of four"
    )
    max_runtime_minutes: float | None = option(
        "machine", "time limit: save the runs and stop before it, with exit code 75"
    )

    def __post_init__(self):
        options.check_choices(self)
        options.check_range(self, ("steps", "parallel_runs", "validation_images"), least=1)
        options.check_range(self, ("seeds",), least=1, most=MOST_SEEDS)
        if self.max_runtime_minutes is not None and not self.max_runtime_minutes > 0:
            raise ValueError(
                "max_runtime_minutes must be above 0. "
                f"Received: max_runtime_minutes={self.max_runtime_minutes}"
            )
        self.chosen_shard()
        if self.budget == "smoke" and (self.data_dir or self.validation_images):
            raise ValueError(
                "budget=smoke trains on the embedded digits, and needs neither data_dir nor "
                "validation_images."
            )

    def chosen_shard(self) -> tuple[int, int]:
        """The number of the part, from 1, and the number of parts.

        Raises:
            ValueError: if shard is not as in 2/4.
        """
        found = _SHARD.fullmatch(self.shard or "1/1")
        part, parts = map(int, found.groups()) if found else (0, 0)
        if not 1 <= part <= parts:
            raise ValueError(
                "shard must be PART/PARTS, with PART from 1 to PARTS, as in 2/4. "
                f"Received: shard={shown(self.shard)}"
            )
        return part, parts

    def experiment(self, words: Sequence[str]) -> Experiment:
        """The experiment that the flags and the words beside them describe.

        Args:
            words: the name of a table of the paper; none with --table.

        Raises:
            ValueError: if there is no such table or no budget, or a row's flags contradict each
                other.
        """
        table = self._table(words)
        if self.budget is None:
            raise ValueError(
                f"budget must be given: one of {', '.join(BUDGETS)}. paper takes days on a GPU; "
                "--dry_run tells how long. Received: budget=None"
            )
        chosen = budget(self.budget, self.steps)
        seeds = table.seeds or range(chosen.seeds)
        if self.seeds is not None:
            seeds = range(self.seeds)
        folder = usable(self.output_dir, "output_dir")
        experiment = Experiment(table, chosen, tuple(seeds), folder, self._given())
        for row in table.rows:
            _check(experiment, Trial(row, experiment.seeds[0]))
        return experiment

    def chosen_trials(self, experiment: Experiment) -> list[Trial]:
        """The runs of the chosen rows and the shard.

        Raises:
            ValueError: if there is no such row.
        """
        names = [row.name for row in experiment.table.rows]
        if self.rows is not None:
            names = _matching(self.rows, names)
        part, parts = self.chosen_shard()
        trials = [trial for trial in experiment.trials() if trial.row.name in names]
        return trials[part - 1 :: parts]

    def _table(self, words: Sequence[str]) -> Table:
        if self.table is not None:
            if words:
                raise ValueError(
                    "A table of the paper or one of your own may be given. "
                    f"Received: {' '.join(words)} and table={shown(self.table)}"
                )
            return own_table.read(self.table)
        if len(words) != 1:
            raise ValueError(
                f"One table must be given: {', '.join(TABLES)}, or --table=FILE.toml. "
                f"Received: {' '.join(words) or 'none'}"
            )
        return TABLES[one_of("table", words[0], TABLES)]

    def _given(self):
        fields = train_flags.read(shlex.split(self.train_flags))
        train_flags.check_of_table(fields)
        own = {"data_dir": self.data_dir, "validation_images": self.validation_images}
        return fields | {name: value for name, value in own.items() if value is not None}


def _matching(patterns, names):
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            one_of("rows", pattern, names, f"names or patterns of {', '.join(names)}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


def _check(experiment, trial):
    try:
        config = experiment.config(trial)
        config.require("dataset", "depth")
        if config.early_stopping_epochs is not None:
            raise ValueError(
                "an experiment measures the weights after the last step. "
                f"Received: early_stopping_epochs={config.early_stopping_epochs}"
            )
    except ValueError as error:
        raise ValueError(f"Row {trial.row.name} of {experiment.table.name}: {error}") from error
