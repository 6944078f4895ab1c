"""The processes that train together, from TF_CONFIG or from SLURM's variables."""

import dataclasses
import itertools
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from keras_preact.support import records, tables
from keras_preact.support.errors import RunError
from keras_preact.support.text import bare

# Port of the first process on a SLURM node; the others count up from it.
SLURM_PORT = 8888
LAST_PORT = 2**16 - 1
MOST_TASKS = 10_000
SCONTROL_SECONDS = 60
CONNECT_SECONDS = 2

EXAMPLE = (
    '\'{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}\''
)


class WorkerLostError(RunError):
    """Another worker has ended or cannot be reached; the run can be resumed."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: trying again may succeed


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of a run, and this process among them.

    Args:
        addresses: host:port of every worker, the chief first.
        index: of this process.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return self.index == 0

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """Returns the cluster for tf.distribute: all are workers, and worker 0 is the chief."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.addresses)}),
            task_type="worker",
            task_id=self.index,
            rpc_layer="grpc",
        )

    def silent(self) -> list[str]:
        """Lists the other workers that accept no connection now."""
        return [
            f"worker {index} at {address}"
            for index, address in enumerate(self.addresses)
            if index != self.index and not _accepts(address)
        ]


def from_environment(environment: Mapping[str, str]) -> Cluster | None:
    """Reads the cluster from TF_CONFIG, else from SLURM; returns None for a single process.

    Raises:
        ValueError: if TF_CONFIG or SLURM's variables are invalid.
    """
    if environment.get("TF_CONFIG"):
        cluster = _from_tf_config(environment["TF_CONFIG"])
    elif "SLURM_STEP_NUM_TASKS" in environment and _whole(environment, "SLURM_STEP_NUM_TASKS") > 1:
        cluster = _from_slurm(environment)
    else:
        return None
    return cluster if len(cluster.addresses) > 1 else None


@dataclasses.dataclass(frozen=True)
class _Task:
    type: str
    # A string from some schedulers.
    index: Any


@dataclasses.dataclass(frozen=True)
class _TfConfig:
    """The fields of TF_CONFIG that are read; clouds add others."""

    cluster: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    task: _Task = _Task("worker", 0)


def _from_tf_config(text):
    try:
        value = records.typed(records.parse_json(text), _TfConfig)
        jobs, kind, index = value.cluster, value.task.type, _index(value.task.index)
        for address in itertools.chain(*jobs.values()):
            _check_address(address)
    except ValueError as error:
        raise ValueError(f"TF_CONFIG must be like {EXAMPLE}: {error}") from None
    if not jobs:
        return Cluster(("localhost:0",), 0)
    unknown = sorted({*jobs, kind} - {"chief", "worker"})
    if unknown:
        raise ValueError(
            "TF_CONFIG may have jobs named chief and worker: every process trains. "
            f"Received: {bare(', '.join(unknown))}"
        )
    if not 0 <= index < len(jobs.get(kind, [])):
        raise ValueError(
            f"The task in TF_CONFIG must be one of its cluster's. Received: {kind} {index} of "
            f"{len(jobs.get(kind, []))}"
        )
    addresses = (*jobs.get("chief", []), *jobs.get("worker", []))
    if len(set(addresses)) < len(addresses):
        received = bare(", ".join(addresses))
        raise ValueError(f"The addresses in TF_CONFIG must differ. Received: {received}")
    return Cluster(addresses, index + (len(jobs.get("chief", [])) if kind == "worker" else 0))


def _index(value):
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    return records.typed(value, int, "task.index")


def _check_address(address):
    host, _, port = address.rpartition(":")
    try:
        # As sockets do: labels of 1 to 63 letters.
        host.encode("idna")
        named = re.fullmatch(r"[^\s\x00-\x1f]+", host)
    except UnicodeError:
        named = False
    if not named or not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= LAST_PORT:
        raise ValueError(
            f"the addresses of cluster must be HOST:PORT, with a port of 1 to {LAST_PORT}. "
            f"Received: {records.short(address)}"
        )


def _whole(environment, name):
    try:
        return tables.whole(environment[name])
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def _from_slurm(environment):
    try:
        index = _whole(environment, "SLURM_PROCID")
        tasks = _expand(environment["SLURM_STEP_TASKS_PER_NODE"])
        nodes = environment["SLURM_STEP_NODELIST"]
    except KeyError as error:
        raise ValueError(
            f"SLURM_STEP_NUM_TASKS is set, but {error.args[0]} is not. Start the processes with "
            "srun, as configs/cluster/slurm.sbatch does."
        ) from None
    hosts = _hosts(nodes)
    if len(hosts) != len(tasks):
        raise ValueError(
            "SLURM_STEP_TASKS_PER_NODE must have an entry for each node of SLURM_STEP_NODELIST. "
            f"Received: {len(tasks)} for {len(hosts)} nodes"
        )
    places = [(host, n) for host, count in zip(hosts, tasks, strict=True) for n in range(count)]
    if index >= len(places):
        raise ValueError(
            "SLURM_PROCID must be below the number of tasks in SLURM_STEP_TASKS_PER_NODE, "
            f"{len(places)}. Received: SLURM_PROCID={index}"
        )
    here = environment.get("SLURMD_NODENAME", places[index][0])
    if places[index][0] != here:
        raise ValueError(
            "The tasks must be numbered node by node: srun --distribution=block. "
            f"Received: task {index} on {bare(here)} in place of {places[index][0]}"
        )
    return Cluster(tuple(f"{host}:{SLURM_PORT + n}" for host, n in places), index)


def _hosts(nodes):
    """Expands SLURM's "node[9-11]" to names of nodes."""
    if shutil.which("scontrol") is None:
        raise ValueError("SLURM's command scontrol is needed to read SLURM_STEP_NODELIST.")
    try:
        scontrol = subprocess.run(
            ["scontrol", "show", "hostnames", nodes],
            capture_output=True,
            timeout=SCONTROL_SECONDS,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"`scontrol show hostnames` must answer within {SCONTROL_SECONDS:g} seconds. "
            f"Received: nothing, for SLURM_STEP_NODELIST={records.short(nodes)}"
        ) from None
    except OSError as error:
        raise ValueError(
            "SLURM's command scontrol is needed to read SLURM_STEP_NODELIST. "
            f"Received: {error.strerror}"
        ) from None
    if scontrol.returncode:
        raise ValueError(
            "SLURM_STEP_NODELIST must be what `scontrol show hostnames` understands. "
            f"Received: {records.short(nodes)}; it says: {records.short(scontrol.stderr.strip())}"
        )
    return scontrol.stdout.split()


def _expand(tasks_per_node):
    """Expands SLURM's "2(x2),1" to [2, 2, 1]."""
    parts = tasks_per_node.split(",")
    found = [re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", part) for part in parts]
    if not all(found):
        raise ValueError(
            "SLURM_STEP_TASKS_PER_NODE must be like 2(x2),1. "
            f"Received: {records.short(tasks_per_node)}"
        )
    counts = [(int(match[1]), int(match[2] or 1)) for match in found]
    if sum(max(count, 1) * nodes for count, nodes in counts) > MOST_TASKS:
        raise ValueError(
            f"SLURM_STEP_TASKS_PER_NODE must have at most {MOST_TASKS} tasks and nodes. "
            f"Received: {records.short(tasks_per_node)}"
        )
    return [count for count, nodes in counts for _ in range(nodes)]


def _accepts(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
