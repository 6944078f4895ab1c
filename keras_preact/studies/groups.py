"""Runs that differ in their seeds alone, as one configuration."""

import dataclasses
import json
from collections import Counter
from collections.abc import Sequence

from keras_preact.data import DatasetInfo
from keras_preact.studies.networks import parts, short_names
from keras_preact.support import records
from keras_preact.training.config import TrainConfig
from keras_preact.training.held_out import HeldOutResult
from keras_preact.training.reporting import metrics_file
from keras_preact.training.reporting.metrics_file import Row
from keras_preact.training.run_folder import RunFolder, learned

# More differences make a name too long.
_MOST_DIFFERENCES = 3


@dataclasses.dataclass(frozen=True)
class Run:
    """A run and its evaluations.

    Args:
        folder: as given.
        config: of the run.
        info: description of its data.
        rows: of metrics.csv, one for each evaluation.
        test_accuracy: on the test split, 0 to 1; None where the run has not ended or its data
            have no test split.
    """

    folder: str
    config: TrainConfig
    info: DatasetInfo
    rows: Sequence[Row]
    test_accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs of one configuration, each with another seed.

    Args:
        label: unique among the groups.
        short_label: the same without the parts that all groups share.
        difference: the fields that tell it from groups of the same network, such as
            "learning_rate 0.05"; empty where the network does.
        runs: in the order given.
        steps: of the evaluations that all runs have, ascending.
    """

    label: str
    short_label: str
    difference: str
    runs: Sequence[Run]
    steps: Sequence[int]

    @property
    def config(self) -> TrainConfig:
        """Of the first run."""
        return self.runs[0].config

    def rows(self, run: Run) -> list[Row]:
        """The evaluations of a run that all runs of the group have."""
        return [row for row in run.rows if row.step in self.steps]

    @property
    def left_out(self) -> int:
        """Number of evaluations that not all runs of the group have."""
        return len({row.step for run in self.runs for row in run.rows}) - len(self.steps)


def read(folder: str) -> Run:
    """Reads a run.

    Raises:
        ValueError: if the folder holds no run, or a file of it is damaged.
    """
    run = RunFolder(folder)
    config, info = run.read()
    rows, accuracy = metrics_file.read(run.metrics), None
    if run.test.exists() and rows:
        result = records.read_json(run.test, HeldOutResult, "the result on the test split")
        if result.end_step == rows[-1].step:
            accuracy = result.scores.get("accuracy")
    return Run(folder, config, info, rows, accuracy)


def of_runs(runs: Sequence[Run]) -> list[Group]:
    """Groups runs that learn the same from the same images, but for their seeds.

    Runs of one seed are in groups of their own, as they are no independent draws; so are runs that
    share no evaluation. Groups are in the order of their first runs.
    """
    members: dict[str, list[Run]] = {}
    for run in runs:
        key = _key(run)
        copies = (f"{key}{number}" for number in range(len(runs)))
        its_key = next(k for k in copies if _can_join(run, members.get(k, [])))
        members.setdefault(its_key, []).append(run)
    groups = list(members.values())
    differences = _differences(groups)
    names = [
        [*parts(group[0].config), *filter(None, [difference])]
        for group, difference in zip(groups, differences, strict=True)
    ]
    counts = Counter(map(tuple, names))
    names = [
        # Runs of one name are told apart by their folders.
        name if counts[tuple(name)] == 1 else [*name[:-1], f"{name[-1]} ({group[0].folder})"]
        for name, group in zip(names, groups, strict=True)
    ]
    return [
        Group(", ".join(name), short, difference, its_runs, _shared_steps(its_runs))
        for name, short, difference, its_runs in zip(
            names, short_names(names), differences, groups, strict=True
        )
    ]


def _key(run):
    fields = learned(run.config)
    del fields["seed"]
    return json.dumps([fields, run.info.to_json()], sort_keys=True)


def _can_join(run, others):
    seeds = {other.config.seed for other in others}
    return run.config.seed not in seeds and bool(_shared_steps([*others, run]))


def _shared_steps(runs):
    return sorted(set.intersection(*({row.step for row in run.rows} for run in runs)))


def _differences(groups):
    """What tells each group from others of the same network; empty where nothing short does."""
    networks = [parts(group[0].config) for group in groups]
    fields = [learned(group[0].config) for group in groups]
    found = []
    for network, own in zip(networks, fields, strict=True):
        others = [each for each, name in zip(fields, networks, strict=True) if name == network]
        names = [
            name for name in own if name != "seed" and any(own[name] != o[name] for o in others)
        ]
        is_short = len(names) <= _MOST_DIFFERENCES
        found.append(", ".join(f"{name} {own[name]}" for name in names) if is_short else "")
    return found
