"""Do all workers of a run agree? Compared before one of them builds, joins or writes anything.

Workers of other flags, other data or other versions would average gradients of different
problems, and all but the first would leave no trace of theirs.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_preact import version
from keras_preact.data import Dataset
from keras_preact.support.text import aligned
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.meeting import Meeting
from keras_preact.training.run_folder import RunFolder

# Fields that may rightly differ from host to host.
_FREE = {
    # Where images lie; the images themselves are compared.
    "data_dir",
    # Hosts may mount what they share in different places. The chief alone writes there, and
    # what a run is continued from is compared.
    "run_dir",
    # Those of a host that are not busy; their kind and number are compared once decided.
    "devices",
    # How long a worker waits for the others, whatever they do.
    "cluster_timeout_seconds",
    # The first worker whose time is up stops all of them after the same step.
    "max_runtime_minutes",
}

# How long a worker that its own checks refuse waits for the others, to see whether their flags
# say more; those started by one command come within that time.
REFUSED_WAIT_SECONDS = 10

# Decoders of another processor may round otherwise; as in run_folder.check_same_data.
_RELATIVE_TOLERANCE = 1e-3

# Of which workers may have their own, told where what lies there differs.
_PLACES = ("data_dir", "run_dir")
_ABSENT = "(none)"
_LONGEST_SHOWN, _END_SHOWN = 100, 36
# From which on workers become the lines of the table, and flags its columns.
_MOST_COLUMNS = 5


class Agreement:
    """A context in which the workers of a run compare what they were given, step by step.

    One process agrees with itself. A worker that leaves the context with a ValueError before
    the others were met meets them if they come soon: where flags differ, all workers end with
    that error. The others are told of any worker that leaves the context before the last
    comparison.

    Args:
        config: of this worker.
        cluster: that it is part of; None for one process.
    """

    def __init__(self, config: TrainConfig, cluster: Cluster | None):
        self._config = config
        self._meeting = cluster and Meeting(cluster)
        self._met = False

    def __enter__(self) -> "Agreement":
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if self._meeting and not self._met and isinstance(error, ValueError):
                self._meet_as_refused()
        finally:
            self._close()

    def on_plan(self, plan: ComputePlan) -> None:
        """Waits for all workers; compares flags and versions, and then what each has decided.

        Raises:
            ValueError: if they differ, with the values of each worker.
            WorkerLostError: if workers do not come in time, or end.
        """
        if self._meeting:
            self._met = True
            self._meeting.open(self._config.cluster_timeout_seconds)
            self._compare_flags()
            compare(
                self._meeting.exchange(facts_of_plan(plan)),
                "All workers must compute alike. The same flags have led to different decisions, "
                "as their machines differ: give --devices, --precision and --xla.",
            )

    def on_data(self, data: Dataset) -> None:
        """Compares the data, and the run that is gone on with or evaluated: the last comparison.

        Raises:
            ValueError: if they differ, with what each worker has found.
            WorkerLostError: if a worker ends.
        """
        if self._meeting:
            facts = self._meeting.exchange(facts_of_data(self._config, data))
            compare(facts, "All workers must find the same files.", same_data, _PLACES)
        self._close()

    def _meet_as_refused(self):
        wait_seconds = min(REFUSED_WAIT_SECONDS, self._config.cluster_timeout_seconds)
        try:
            self._meeting.open(wait_seconds)
        except (WorkerLostError, ValueError):
            return  # alone, it has its own error to tell
        with contextlib.suppress(WorkerLostError):
            self._compare_flags()

    def _compare_flags(self):
        compare(
            self._meeting.exchange(facts_of_flags(self._config)),
            "All workers must be started with the same flags, by the same versions. Nothing has "
            "been changed.",
        )

    def _close(self):
        if self._meeting:
            self._meeting.close()


def facts_of_flags(config: TrainConfig) -> dict[str, Any]:
    """The flags and versions of a worker that must equal those of the others."""
    return {
        **{name: value for name, value in config.to_json().items() if name not in _FREE},
        "version of keras_preact": version.__version__,
        "version of TensorFlow": tf.__version__,
        "version of Keras": keras.__version__,
        # Draws the order of the data.
        "version of NumPy": np.__version__,
    }


def facts_of_plan(plan: ComputePlan) -> dict[str, Any]:
    """The devices, precision and XLA of a worker, which must equal those of the others."""
    return {
        "devices": f"{len(plan.devices)} {plan.devices[0].partition(':')[0]}",
        "precision": plan.precision,
        "xla": plan.xla,
    }


def facts_of_data(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """The data and the run of a worker, which must equal the others', and where they lie."""
    digests = {f"{split} images": digest for split, digest in data.digests().items()}
    facts = {"data_dir": config.data_dir, **data.info.to_json(), **digests}
    if config.resume or config.mode == "evaluate":
        record = RunFolder(config.folder).config
        found = _digest(record.read_bytes()) if record.exists() else _ABSENT
        facts |= {"run_dir": config.folder, "config.json": found}
    return facts


def same_data(name: str, value: Any, other: Any) -> bool:
    """Whether two workers' values of `facts_of_data` are the same, but for rounding."""
    if name in ("mean", "std"):
        return len(value) == len(other) and np.allclose(value, other, rtol=_RELATIVE_TOLERANCE)
    return value == other


def compare(
    facts: Sequence[Mapping[str, Any]],
    rule: str,
    same: Callable[[str, Any, Any], bool] = lambda name, value, other: value == other,
    for_information: Sequence[str] = (),
) -> None:
    """Raises ValueError if workers differ, with a table of what differs.

    Args:
        facts: of each worker in order, by name.
        rule: that they must keep.
        same: takes a name and two values and says whether they are the same.
        for_information: names that may differ, and are shown where others do.
    """
    names = dict.fromkeys(name for each in facts for name in each)
    values = {name: [each.get(name, _ABSENT) for each in facts] for name in names}
    differing = [
        name
        for name in names
        if name not in for_information
        and not all(same(name, value, values[name][0]) for value in values[name])
    ]
    if not differing:
        return
    shown = [name for name in names if name in differing or name in for_information]
    columns = {}
    for index in range(len(facts)):
        cells = tuple(_shown(values[name][index]) for name in shown)
        columns.setdefault(cells, []).append(index)
    table = [("", *map(_workers, columns.values())), *zip(shown, *columns, strict=True)]
    if len(columns) > _MOST_COLUMNS:
        table = list(zip(*table, strict=True))
    raise ValueError(f"{rule} These differ:\n{aligned(table[0], table[1:])}")


def _shown(value):
    """A value in a table: plain where it is short and harmless."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    if len(text) <= _LONGEST_SHOWN:
        return text
    # Two that begin and end alike must not look alike.
    digest = _digest(text.encode(errors="surrogateescape"))
    return f"{text[:_END_SHOWN]}...{text[-_END_SHOWN:]} ({digest})"


def _workers(indices):
    """As in "worker 1" or "workers 0, 2-63"."""
    ranges = []
    for index in indices:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    names = [f"{first}-{last}" if first < last else f"{first}" for first, last in ranges]
    return f"worker{'s' if len(indices) > 1 else ''} {', '.join(names)}"


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:12]
