"""The strategy of a run, its precision, and what becomes of it when a worker is lost."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import Cluster, WorkerLostError
from keras_preact.training.distribution.compute_plan import ComputePlan, Machine, make_compute_plan


class Devices(NamedTuple):
    """The devices of a run, over all its processes.

    Args:
        plan: how the run computes.
        strategy: over whose replicas a batch is spread.
        writes: whether this process writes the files of the run: one does.
    """

    plan: ComputePlan
    strategy: tf.distribute.Strategy
    writes: bool


def make_strategy(plan: ComputePlan, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """The strategy decided on; of several workers, which must have met.

    Raises:
        ValueError: if TensorFlow has started before the CPU could be split.
    """
    if plan.strategy == "multi_worker":
        return _join(plan, cluster)
    if len(plan.devices) > 1:
        return _mirrored(plan.devices)
    if plan.devices[0] == "CPU:0" and not tf.config.list_physical_devices("GPU"):
        return tf.distribute.get_strategy()
    return tf.distribute.OneDeviceStrategy(f"/{plan.devices[0]}")


# Two strategies over the same devices would take each other's collectives for their own.
@functools.cache
def _mirrored(devices):
    names = [f"/{device}" for device in devices]
    if not devices[0].startswith("CPU"):
        return tf.distribute.MirroredStrategy(names)
    _split_cpu(devices)
    # Parts of one processor share its memory, and need no collectives.
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


def _join(plan, cluster):
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        chosen = [gpu for gpu in gpus if gpu.name.endswith(plan.devices)]
        tf.config.set_visible_devices(chosen, "GPU")
    return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=cluster.resolver())


@contextlib.contextmanager
def prepared(
    config: TrainConfig,
    cluster: Cluster | None = None,
    agree: Callable[[ComputePlan], None] = lambda plan: None,
) -> Iterator[Devices]:
    """Decides, and sets the precision for as long as the context lasts.

    Determinism, once switched on, lasts as long as the process.

    Args:
        config: of the run.
        cluster: that this process is part of, if it is.
        agree: takes the plan before the strategy is made; of several workers, returns
            once all have come to the same.

    Yields:
        The devices.

    Raises:
        ValueError: if what config wishes cannot be had here; or as agree does.
        WorkerLostError: if another worker is lost while the context lasts.
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
    """Raises ValueError where workers have restored different steps."""
    if _total(strategy, start) != start * strategy.num_replicas_in_sync:
        raise ValueError(
            "All workers must see the same run_dir, on storage that they share: their newest "
            f"checkpoints differ. Received: step {start:,} here"
        )


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns once every worker has called it."""
    _total(strategy, 0)


def _total(strategy, number):
    """The sum of a number over all replicas."""
    return int(_summing(strategy)(tf.constant(number, tf.int64)))


@functools.cache
def _summing(strategy):
    @tf.function
    def total(number):
        # A tensor of its own on each replica, as only such are summed.
        numbers = strategy.run(tf.identity, (number,))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)

    return total


@contextlib.contextmanager
def _telling_lost_workers(cluster):
    # Which of these TensorFlow raises depends on what it was doing.
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


def all_reduce(
    operation: tf.distribute.ReduceOp, values: Sequence[tf.Tensor | tf.Variable]
) -> list[tf.Tensor]:
    """Sums or means of each of the values over all replicas, exchanged in a row.

    To be called in a replica context.

    Args:
        operation: SUM or MEAN.
        values: of one dtype and of known shapes.
    """
    row = tf.concat([tf.reshape(value, [-1]) for value in values], axis=0)
    row = tf.distribute.get_replica_context().all_reduce(operation, row)
    parts = tf.split(row, [value.shape.num_elements() for value in values])
    return [tf.reshape(part, value.shape) for part, value in zip(parts, values, strict=True)]
