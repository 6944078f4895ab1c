"""The strategy and precision of a run, its all-reduce, and errors for lost workers."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.compute_plan import ComputePlan, Machine, make_compute_plan


class Devices(NamedTuple):
    """The devices of a run.

    Args:
        plan: compute plan.
        strategy: distributes steps over the replicas of all processes.
        writes: whether this process writes the files of the run; exactly one does.
    """

    plan: ComputePlan
    strategy: tf.distribute.Strategy
    writes: bool


def make_strategy(plan: ComputePlan, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Makes the strategy of a compute plan; several workers must have met before.

    Raises:
        ValueError: if the CPU can no longer be split, or GPUs no longer be chosen, as
            TensorFlow has been used.
    """
    devices = claim(plan.devices)
    if plan.strategy == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=cluster.resolver())
    if len(devices) > 1:
        return _mirrored(devices)
    if devices[0] == "CPU:0" and not tf.config.list_physical_devices("GPU"):
        return tf.distribute.get_strategy()
    return tf.distribute.OneDeviceStrategy(f"/{devices[0]}")


def claim(
    devices: Sequence[str], config: Any = tf.config, environment: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Makes no other GPUs visible to TensorFlow than the given ones.

    Their memory grows as needed, unless TF_FORCE_GPU_ALLOW_GROWTH says otherwise. Once
    TensorFlow is in use in this process, both stay as they are.

    Args:
        devices: as in a `ComputePlan`.
        config: TensorFlow's module of that name.
        environment: the environment variables.

    Returns:
        TensorFlow's names of the devices, in the same order. It counts visible GPUs alone.

    Raises:
        ValueError: if TensorFlow is in use without one of the GPUs.
    """
    gpus = {f"GPU:{index}": gpu for index, gpu in enumerate(config.list_physical_devices("GPU"))}
    if not gpus:
        return tuple(devices)
    chosen = [gpu for name, gpu in gpus.items() if name in devices]
    try:
        config.set_visible_devices(chosen, "GPU")
        if "TF_FORCE_GPU_ALLOW_GROWTH" not in environment:
            for gpu in chosen:
                config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        pass  # in use
    visible = config.get_visible_devices("GPU")
    # In the order of the machine, whatever the order of the choice.
    names = [name for name, gpu in gpus.items() if gpu in visible]
    if hidden := [name for name in devices if name in gpus and name not in names]:
        raise ValueError(
            f"devices={','.join(devices)} needs another process: TensorFlow is in use in this one "
            f"with {', '.join(names) or 'the CPU'} alone, and can no longer add "
            f"{', '.join(hidden)}."
        )
    return tuple(f"GPU:{names.index(name)}" if name in gpus else name for name in devices)


# Two strategies on the same devices would mix up their collectives.
@functools.cache
def _mirrored(devices):
    names = [f"/{device}" for device in devices]
    if not devices[0].startswith("CPU"):
        return tf.distribute.MirroredStrategy(names)
    _split_cpu(devices)
    # Parts of one CPU share its memory, and need no collectives.
    return tf.distribute.MirroredStrategy(names, tf.distribute.ReductionToOneDevice())


def _split_cpu(devices):
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or []) >= len(devices):
        return
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration() for _ in devices]
        )
    except RuntimeError:
        raise ValueError(
            f"The CPU can be split into {len(devices)} devices only before TensorFlow is used."
        ) from None


@contextlib.contextmanager
def prepared(
    config: TrainConfig,
    cluster: Cluster | None = None,
    agree: Callable[[ComputePlan], None] = lambda plan: None,
) -> Iterator[Devices]:
    """Makes compute plan and strategy, and sets the precision within this context.

    Determinism, once switched on, lasts as long as the process.

    Args:
        config: configuration of the run.
        cluster: of this process; None for one process.
        agree: called with the compute plan before the strategy is made; returns once all
            workers have the same plan.

    Yields:
        The devices.

    Raises:
        ValueError: if this machine cannot do what the configuration asks for; or as agree does.
        WorkerLostError: if another worker is lost within the context.
    """
    plan = make_compute_plan(config, Machine.here(), cluster)
    agree(plan)
    strategy = make_strategy(plan, cluster)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(plan.precision)
    try:
        with _telling_lost_workers(cluster):
            yield Devices(plan, strategy, cluster is None or cluster.is_chief)
    finally:
        keras.config.set_dtype_policy(before)


def check_same_start(strategy: tf.distribute.Strategy, start: int) -> None:
    """Raises ValueError if workers have restored different steps."""
    if _total(strategy, start) != start * strategy.num_replicas_in_sync:
        raise ValueError(
            "All workers must see the same run_dir, on storage that they share: their newest "
            f"checkpoints differ. Received: step {start:,} here"
        )


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker has called it."""
    _total(strategy, 0)


def _total(strategy, number):
    """Sums a number over all replicas."""
    return int(_summing(strategy)(tf.constant(number, tf.int64)))


@functools.cache
def _summing(strategy):
    @tf.function
    def total(number):
        # reduce() sums only per-replica tensors.
        numbers = strategy.run(tf.identity, (number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)

    return total


@contextlib.contextmanager
def _telling_lost_workers(cluster):
    # TensorFlow raises any of these, depending on what it was doing.
    lost = (
        *(tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError),
        *(tf.errors.InternalError, tf.errors.DeadlineExceededError),
    )
    try:
        yield
    except lost as error:
        if cluster is None:
            raise
        silent = cluster.silent()
        who = " and ".join(silent) or "another worker"
        says = "" if silent else f" TensorFlow says: {' '.join(str(error).split())[:300]}"
        raise WorkerLostError(
            f"Lost {who}: it has ended or cannot be reached. Its own output says why. Start all "
            f"workers again, with --resume.{says}"
        ) from error
