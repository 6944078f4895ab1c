"""Our training step, our inference and our exports, as the benchmark runs them."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_preact.benchmark.on_tensorflow import MEAN, STD, device, prepare_serving
from keras_preact.data import Dataset, DatasetInfo
from keras_preact.data.sources import InMemory
from keras_preact.exporting.formats import saved_model
from keras_preact.exporting.graph import network, rewriting
from keras_preact.models import ResNetV2, architectures
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan
from keras_preact.training.distribution.device_images import MOST_STEPS, DeviceImages, Draws
from keras_preact.training.distribution.distributed_input import feed
from keras_preact.training.distribution.strategies import make_strategy
from keras_preact.training.run import build_model
from keras_preact.training.steps import optimizer, schedules
from keras_preact.training.steps.pace import Pace
from keras_preact.training.steps.train_state import TrainState, make_state
from keras_preact.training.steps.train_step import TrainStep

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job

__all__ = ["device", "export", "prepare"]


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds the network and a batch of noise.

    Images are uint8 and normalized in the graph. In training, small ones are on the device, as
    those of CIFAR are, and large ones come from the host, as decoded files do.

    Returns:
        take(steps), which returns the seconds that the steps took, including the last
        result's way to the host.
    """
    keras.config.set_dtype_policy(job.precision)
    config = make_config(job)
    shape = (job.image_size, job.image_size, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (job.batch_size, *shape), np.uint8)
    if job.mode == "serving":
        return prepare_serving(lambda folder: export(job, folder), images)
    labels = rng.integers(0, job.net.classes, job.batch_size, np.int32)
    if job.mode == "train":
        return _training(config, Training.build(config, make_data(job, images, labels)))
    return _inference(config, images, _info(job, shape))


def make_config(job: "Job") -> TrainConfig:
    """Returns the configuration of a run that trains as a job does."""
    return TrainConfig(
        depth=job.net.depth,
        block=job.net.block,
        global_batch_size=job.batch_size,
        precision=job.precision,
        xla=job.xla,
        unit_loops=job.unit_loops,
        remat=job.remat,
        strategy="one_device",
    )


class Training(NamedTuple):
    """A training step and its batches.

    Args:
        state: that the steps change.
        step: takes steps.
        batches: without end.
    """

    state: TrainState
    step: TrainStep
    batches: Draws | Iterator

    @classmethod
    def build(cls, config: TrainConfig, data: Dataset) -> "Training":
        """Builds network, optimizer and step, as a run does."""
        plan = make_compute_plan(config, Machine.here())
        strategy = make_strategy(plan)
        with strategy.scope():
            model = build_model(config, data.info)
            schedule = schedules.make_schedule(config, data.info.train_count)
            sgd = optimizer.make_optimizer(config, schedule, model)
            state = make_state(config, model, sgd, plan)
        images = None
        if architectures.resolve(config.depth, block=config.block).stem == "cifar":
            images = DeviceImages(data, "none", strategy)
        step = TrainStep(state, config, data.info, plan, strategy, images)
        if step.takes_draws:
            return cls(state, step, Draws(data.train_order(config.global_batch_size), 0))
        source = data.train_source
        batches = tf.data.Dataset.from_tensors((source.images, source.labels)).repeat()
        return cls(state, step, feed(strategy, lambda shard: batches))


def make_data(job: "Job", images: np.ndarray, labels: np.ndarray) -> Dataset:
    """Returns a data set of images for the job's network."""
    source = InMemory(images, labels)
    return Dataset(_info(job, images.shape[1:], len(images)), source, source, "none")


def _info(job, shape, count=1):
    return DatasetInfo(
        name="noise",
        class_names=tuple(map(str, range(job.net.classes))),
        image_shape=shape,
        train_count=count,
        eval_count=count,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        resize_ratio=1.0,
    )


def export(job: "Job", folder: str) -> None:
    """Writes the network as export.py does: a SavedModel for TensorFlow Serving."""
    # An export is built in float32, whatever precision it computes in.
    keras.config.set_dtype_policy("float32")
    shape = (job.image_size, job.image_size, 3)
    graph = network.trace(ResNetV2(job.net.depth, block=job.net.block, input_shape=shape), shape)
    graph = rewriting.rewrite(graph)[-1].graph
    graph = saved_model.rewrite(graph, job.precision.removeprefix("mixed_"))[-1].graph
    saved_model.write(graph, _info(job, shape).preprocessing, folder)


def _training(config, training):
    done, pace = 0, Pace(MOST_STEPS)

    def take(steps):
        nonlocal done
        start, end = time.perf_counter(), done + steps
        while done < end:
            now = min(pace.next, end - done)
            training.step(training.batches, done, now)
            pace.update(training.step.seconds_per_step)
            done += now
        return time.perf_counter() - start

    return take


def _inference(config, images, info):
    model = ResNetV2(config.depth, block=config.block, input_shape=info.image_shape)

    # Compiled by XLA where training is, as Keras' predict is.
    @tf.function(jit_compile=make_compute_plan(config, Machine.here()).xla)
    def infer(images):
        return model(info.normalize(images), training=False)

    def take(steps):
        start = time.perf_counter()
        for logits in [infer(images) for _ in range(steps)]:
            logits.numpy()
        return time.perf_counter() - start

    return take
