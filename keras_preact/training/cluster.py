"""Which processes train together: read from TF_CONFIG or from SLURM's variables."""

import dataclasses
import itertools
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Mapping

import tensorflow as tf

from keras_preact.training.errors import RunError

# Of the first process on a SLURM node; the others count up from it.
SLURM_PORT = 8888
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
    """The workers of a run, and which of them this process is.

    Args:
        addresses: host:port of every worker, the chief first.
        index: of this process among them.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run's files."""
        return self.index == 0

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """What tf.distribute takes: all are workers, and worker 0 is the chief."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec({"worker": list(self.addresses)}),
            task_type="worker",
            task_id=self.index,
            rpc_layer="grpc",
        )

    def silent(self) -> list[str]:
        """The other workers that accept no connection at present."""
        return [
            f"worker {index} at {address}"
            for index, address in enumerate(self.addresses)
            if index != self.index and not _accepts(address)
        ]


def from_environment(environment: Mapping[str, str]) -> Cluster | None:
    """The cluster that TF_CONFIG, else SLURM, describes; None where there is but one process.

    Raises:
        ValueError: if TF_CONFIG or SLURM's variables are not as they should be.
    """
    if environment.get("TF_CONFIG"):
        cluster = _from_tf_config(environment["TF_CONFIG"])
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        cluster = _from_slurm(environment)
    else:
        return None
    return cluster if len(cluster.addresses) > 1 else None


def _from_tf_config(text):
    try:
        value = json.loads(text)
        jobs = {job: list(tasks) for job, tasks in value.get("cluster", {}).items()}
        task = value.get("task", {"type": "worker", "index": 0})
        kind, index = task["type"], int(task["index"])
        if not all(re.fullmatch(r".+:\d+", address) for address in itertools.chain(*jobs.values())):
            raise ValueError("not all are addresses")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ValueError(f"TF_CONFIG must be like {EXAMPLE}. Received: {text}") from None
    if not jobs:
        return Cluster(("localhost:0",), 0)
    unknown = sorted({*jobs, kind} - {"chief", "worker"})
    if unknown:
        raise ValueError(
            "TF_CONFIG may have jobs named chief and worker: every process trains. "
            f"Received: {', '.join(unknown)}"
        )
    if not 0 <= index < len(jobs.get(kind, [])):
        raise ValueError(
            f"The task in TF_CONFIG must be one of its cluster's. Received: {kind} {index} of "
            f"{len(jobs.get(kind, []))}"
        )
    addresses = (*jobs.get("chief", []), *jobs.get("worker", []))
    if len(set(addresses)) < len(addresses):
        raise ValueError(
            f"The addresses in TF_CONFIG must differ. Received: {', '.join(addresses)}"
        )
    return Cluster(addresses, index + (len(jobs.get("chief", [])) if kind == "worker" else 0))


def _from_slurm(environment):
    try:
        index = int(environment["SLURM_PROCID"])
        tasks = _expand(environment["SLURM_STEP_TASKS_PER_NODE"])
        nodes = environment["SLURM_STEP_NODELIST"]
    except KeyError as error:
        raise ValueError(
            f"SLURM_STEP_NUM_TASKS is set, but {error.args[0]} is not. Start the processes with "
            "srun, as configs/cluster/slurm.sbatch does."
        ) from None
    if shutil.which("scontrol") is None:
        raise ValueError("SLURM's command scontrol is needed to read SLURM_STEP_NODELIST.")
    scontrol = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True
    )
    if scontrol.returncode:
        raise ValueError(
            "SLURM_STEP_NODELIST must be what `scontrol show hostnames` understands. "
            f"Received: {nodes}; it says: {scontrol.stderr.strip()}"
        )
    hosts = scontrol.stdout.split()
    if len(hosts) != len(tasks):
        raise ValueError(
            "SLURM_STEP_TASKS_PER_NODE must have an entry for each node of SLURM_STEP_NODELIST. "
            f"Received: {len(tasks)} for {len(hosts)} nodes"
        )
    places = [(host, n) for host, count in zip(hosts, tasks, strict=True) for n in range(count)]
    here = environment.get("SLURMD_NODENAME", places[index][0])
    if places[index][0] != here:
        raise ValueError(
            "The tasks must be numbered node by node: srun --distribution=block. "
            f"Received: task {index} on {here} in place of {places[index][0]}"
        )
    return Cluster(tuple(f"{host}:{SLURM_PORT + n}" for host, n in places), index)


def _expand(tasks_per_node):
    """[2, 2, 1] of SLURM's "2(x2),1"."""
    tasks = []
    for part in tasks_per_node.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if not match:
            raise ValueError(
                f"SLURM_STEP_TASKS_PER_NODE must be like 2(x2),1. Received: {tasks_per_node}"
            )
        tasks += [int(match[1])] * int(match[2] or 1)
    return tasks


def _accepts(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
