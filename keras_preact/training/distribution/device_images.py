"""Images of one size on the devices that train; the host sends indices and random integers."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib

from keras_preact.data import Dataset
from keras_preact.data.augmentation import augmented
from keras_preact.data.dataset import eval_pieces, order_pieces
from keras_preact.data.order import DRAWS, DataOrder
from keras_preact.data.sources import InMemory
from keras_preact.support import memory
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.distributed_input import feed

# Share of a device's memory that images may take: the network needs the rest.
MOST_SHARE = 0.1
# Steps of one launch, at most: XLA compiles for one shape of the arrays that it receives.
MOST_STEPS = 256


class DeviceImages:
    """All images of a data set and their labels, a copy on each device of this process.

    Args:
        data: in memory; see `fits`.
        augmentation: of training images, as for `Dataset.train`.
        strategy: gives the devices.
        xla: whether XLA compiles what calls `train_batch`.
    """

    def __init__(
        self,
        data: Dataset,
        augmentation: str | None,
        strategy: tf.distribute.Strategy,
        xla: bool = True,
    ):
        self._augmentation = data.check_augmentation(augmentation)
        self._mean, devices = data.info.mean, _devices(strategy)
        self._train = {device: _Copy.on(device, data.train_source) for device in devices}
        self._eval = {device: _Copy.on(device, data.eval_source) for device in devices}
        # Numbers up to 255 are exact in both. GPUs have no kernel that crops uint8.
        self._dtype = tf.float16 if any("GPU" in device for device in devices) else tf.uint8
        # XLA knows no shapes that depend on draws, and GPUs would wait for them.
        self._dense = xla or self._dtype == tf.float16

    def train_batch(self, indices: tf.Tensor, draws: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the images and labels of a batch of `Dataset.train`, and weights if it has any.

        Args:
            indices: (batch,).
            draws: int32 (batch, DRAWS).
        """
        images, *others = _own(self._train).gather(indices)
        images = tf.cast(images, self._dtype)
        return augmented(images, draws, self._augmentation, self._mean, self._dense), *others

    def eval_batch(
        self, indices: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Returns the images, labels and weights of a batch of `Dataset.eval`."""
        return *_own(self._eval).gather(indices)[:2], weights


def fits(data: Dataset, plan: ComputePlan) -> bool:
    """Whether the images are in memory, and take under a tenth of each device's memory."""
    sources = data.train_source, data.eval_source
    if not all(isinstance(source, InMemory) for source in sources):
        return False
    # Devices that are parts of one CPU share its memory.
    copies = len(plan.devices) if plan.devices[0].startswith("CPU") else 1
    needed_bytes = copies * sum(source.images.nbytes for source in sources)
    return needed_bytes <= MOST_SHARE * memory_bytes(plan)


def memory_bytes(plan: ComputePlan) -> float:
    """The memory of the smallest device; of the machine for CPUs; 0 where it is not known."""
    if plan.devices[0].startswith("CPU"):
        return memory.most()[0]
    limits = [device.memory_limit for device in device_lib.list_local_devices() if _is_gpu(device)]
    return min(limits, default=0)


def _is_gpu(device):
    return device.device_type == "GPU"


def _devices(strategy):
    with strategy.scope():
        # The default strategy, on the CPU alone, tells no devices.
        return strategy.extended.worker_devices if tf.distribute.has_strategy() else ("",)


class _Copy(NamedTuple):
    """The images of a split on a device.

    Args:
        rows: their bytes, int64 (count, bytes / 8), as GPUs have no kernel that gathers uint8.
        labels: int64 (count,): TensorFlow computes with int32 on the host; of several labels
            float32 (count, classes).
        image_shape: (height, width, channels).
        weights: of the images in the loss, float32 (count,); None for 1 each.
    """

    rows: tf.Tensor
    labels: tf.Tensor
    image_shape: tuple[int, int, int]
    weights: tf.Tensor | None = None

    @classmethod
    def on(cls, device: str, source: InMemory) -> "_Copy":
        """Copies a split to a device."""
        image_bytes = source.images.reshape(len(source), -1)
        missing = -image_bytes.shape[1] % 8
        if missing:
            image_bytes = np.pad(image_bytes, [[0, 0], [0, missing]])
        rows = np.ascontiguousarray(image_bytes).view(np.int64)
        with tf.device(device):
            labels = tf.identity(_on_devices(source.labels))
            weights = None if source.weights is None else tf.identity(source.weights)
            return cls(tf.identity(rows), labels, source.images.shape[1:], weights)

    def gather(self, indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Returns the images and labels at indices, uint8 and int32, and weights if there are any.

        Several labels are float32 (batch, classes), as weights are.
        """
        flat = tf.reshape(
            tf.bitcast(tf.gather(self.rows, indices), tf.uint8), [-1, 8 * self.rows.shape[1]]
        )
        # Pieces for several workers have no static size.
        count = -1 if indices.shape[0] is None else indices.shape[0]
        images = tf.reshape(flat[:, : math.prod(self.image_shape)], [count, *self.image_shape])
        labels = tf.gather(self.labels, indices)
        if labels.dtype.is_integer:
            labels = tf.cast(labels, tf.int32)
        if self.weights is None:
            return images, labels
        return images, labels, tf.gather(self.weights, indices)


def _on_devices(labels):
    return labels.astype(np.int64 if labels.ndim == 1 else np.float32)


def _own(copies):
    """The copy on the calling replica's device."""
    if len(copies) == 1:
        [copy] = copies.values()
        return copy
    [device] = tf.nest.flatten(tf.distribute.get_replica_context().devices)
    return copies[device]


class Draws:
    """The images of successive steps, for one replica that takes several in one launch.

    Args:
        order: of the run.
        step: of the first batch.
    """

    def __init__(self, order: DataOrder, step: int):
        self._order, self._step = order, step

    def take(self, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the next steps' indices, int32 (MOST_STEPS, batch), and draws, int32.

        Args:
            steps: at most MOST_STEPS; the rest of the arrays is zeros.
        """
        size = self._order.batch_size
        indices = np.zeros((MOST_STEPS, size), np.int32)
        draws = np.zeros((MOST_STEPS, size, DRAWS), np.int32)
        chosen, drawn = self._order.batch(self._step, steps)
        indices[:steps], draws[:steps] = (
            chosen.reshape(steps, size),
            drawn.reshape(steps, size, DRAWS),
        )
        self._step += steps
        return indices, draws


def feed_draws(strategy: tf.distribute.Strategy, order: DataOrder, step: int) -> Iterator:
    """Distributes the indices and draws of batches from a step on over several replicas."""

    def pieces(shard):
        return order_pieces(order, step, shard).prefetch(tf.data.AUTOTUNE)

    return feed(strategy, pieces, to_device=False)


def feed_eval_pieces(strategy: tf.distribute.Strategy, count: int, batch_size: int) -> Iterator:
    """Distributes the indices and weights of evaluation batches over several replicas."""

    def pieces(shard):
        return tf.data.Dataset.from_tensor_slices(eval_pieces(count, batch_size, shard))

    return feed(strategy, pieces, to_device=False)
