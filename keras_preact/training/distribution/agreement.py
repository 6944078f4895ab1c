"""Compares flags, versions, devices and data of all workers before they build or write anything.

Workers that differ would average gradients of different problems, and only the chief's flags
would be recorded.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact import version
from keras_preact.data import Dataset
from keras_preact.support.text import aligned
from keras_preact.training import class_weights, own_units
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.meeting import Meeting
from keras_preact.training.run_folder import RunFolder

# Fields that may differ from host to host.
_FREE = {
    # The images themselves are compared.
    "data_dir",
    # Hosts may mount shared storage in different places. Only the chief writes there, and the
    # record of a run to resume is compared.
    "run_dir",
    # Other devices may be busy on each host. Their kind and number are compared.
    "devices",
    # Concerns this worker's waiting alone.
    "cluster_timeout_seconds",
    # The first worker to reach its time limit stops all workers after the same step.
    "max_runtime_minutes",
}

# A worker whose own checks fail waits this long for the others: if flags differ, that is the
# better error. Workers started by one command arrive within this time.
REFUSED_WAIT_SECONDS = 10

# Decoders round differently on other processors; as in run_folder.check_same_data.
_RELATIVE_TOLERANCE = 1e-3

# Shown in errors, as they tell where different data or records lie.
_PLACES = ("data_dir", "run_dir")
_ABSENT = "(none)"
_LONGEST_SHOWN, _END_SHOWN = 100, 36
# With more columns, the table is transposed: a line for each worker.
_MOST_COLUMNS = 5


class Agreement:
    """A context in which the workers of a run compare flags, compute plans and data.

    A ValueError raised in the context before the workers have met is held back for a while: if
    the others arrive meanwhile and flags differ, all workers end with an error that says so.
    A worker that leaves before the last comparison is reported as lost to the others.

    Args:
        config: of this worker.
        cluster: of this worker; None for one process, which compares nothing.
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
        """Waits for all workers; compares flags and versions, then compute plans.

        Raises:
            ValueError: if they differ, with the values of each worker.
            WorkerLostError: if a worker does not arrive in time, or ends.
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
        """Compares data, and the record of a run to resume or evaluate; closes the connections.

        Raises:
            ValueError: if they differ, with the values of each worker.
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
            return  # without others, its own error is the one to show
        with contextlib.suppress(WorkerLostError):
            self._compare_flags()

    def _compare_flags(self):
        compare(
            self._meeting.exchange(facts_of_flags(self._config.resolved())),
            "All workers must be started with the same flags, by the same versions. Nothing has "
            "been changed.",
        )

    def _close(self):
        if self._meeting:
            self._meeting.close()


def facts_of_flags(config: TrainConfig) -> dict[str, Any]:
    """Returns the flags and versions that all workers must share."""
    flags = {name: value for name, value in config.to_json().items() if name not in _FREE}
    # Hosts may have code of the user's in different places.
    code = {name: own_units.identity(flags[name]) for name in own_units.FIELDS}
    return {
        **flags,
        **code,
        "version of keras_preact": version.__version__,
        "version of TensorFlow": tf.__version__,
        "version of Keras": keras.__version__,
        # NumPy draws the data order.
        "version of NumPy": np.__version__,
    }


def facts_of_plan(plan: ComputePlan) -> dict[str, Any]:
    """Returns the kind and number of devices, precision and XLA, which all workers must share."""
    return {
        "devices": f"{len(plan.devices)} {plan.devices[0].partition(':')[0]}",
        "precision": plan.precision,
        "xla": plan.xla,
    }


def facts_of_data(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """Returns what all workers must share of data and run, and the folders of both."""
    digests = {f"{split} images": digest for split, digest in data.digests().items()}
    facts = {"data_dir": config.data_dir, **data.info.to_json(), **digests}
    if config.resume or config.mode == "evaluate":
        record = RunFolder(config.folder).config
        found = _digest(record.read_bytes()) if record.exists() else _ABSENT
        facts |= {"run_dir": config.folder, "config.json": found}
    if config.class_weights not in (None, class_weights.AUTO):
        file = epath.Path(config.class_weights)
        facts["class_weights"] = _digest(file.read_bytes()) if file.is_file() else _ABSENT
    return facts


def same_data(name: str, value: Any, other: Any) -> bool:
    """Whether two values of `facts_of_data` are equal, but for rounding."""
    if name in ("mean", "std"):
        return len(value) == len(other) and np.allclose(value, other, rtol=_RELATIVE_TOLERANCE)
    return value == other


def compare(
    facts: Sequence[Mapping[str, Any]],
    rule: str,
    same: Callable[[str, Any, Any], bool] = lambda name, value, other: value == other,
    for_information: Sequence[str] = (),
) -> None:
    """Raises ValueError if workers differ, with a table of the differences.

    Args:
        facts: a mapping of names to values for each worker.
        rule: first sentence of the error.
        same: whether two values of a name count as equal.
        for_information: names that may differ, and are shown if others do.
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
    """Formats a value for a table: escaped; if long, its ends and a digest of all."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    if len(text) <= _LONGEST_SHOWN:
        return text
    # The digest tells values apart that begin and end alike.
    digest = _digest(text.encode(errors="surrogateescape"))
    return f"{text[:_END_SHOWN]}...{text[-_END_SHOWN:]} ({digest})"


def _workers(indices):
    """Formats indices, as in "worker 1" or "workers 0, 2-63"."""
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
