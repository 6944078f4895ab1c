"""Our training step, our inference and our exports, as the benchmark runs them."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from keras_preact.benchmark.on_tensorflow import MEAN, STD, device, prepare_serving
from keras_preact.data import DatasetInfo
from keras_preact.exporting.formats import saved_model
from keras_preact.exporting.graph import network, rewriting
from keras_preact.models import ResNetV2
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan
from keras_preact.training.distribution.distributed_input import feed
from keras_preact.training.distribution.strategies import make_strategy
from keras_preact.training.steps import optimizer
from keras_preact.training.steps.train_state import make_state
from keras_preact.training.steps.train_step import TrainStep

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job

__all__ = ["device", "export", "prepare"]


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds the network and a batch of noise.

    Images are uint8 in host memory and normalized in the graph, as data sets and
    clients send them.

    Returns:
        take(steps), which returns the seconds that the steps took, including the last
        result's way to the host.
    """
    keras.config.set_dtype_policy(job.precision)
    config = TrainConfig(
        depth=job.net.depth,
        global_batch_size=job.batch_size,
        precision=job.precision,
        strategy="one_device",
    )
    shape = (job.image_size, job.image_size, 3)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (job.batch_size, *shape), np.uint8)
    if job.mode == "serving":
        return prepare_serving(lambda folder: export(job, folder), images)
    labels = rng.integers(0, job.net.classes, job.batch_size, np.int32)
    batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
    return {"train": _training, "inference": _inference}[job.mode](config, batches, shape, job)


def _info(job, shape):
    return DatasetInfo(
        name="noise",
        class_names=tuple(map(str, range(job.net.classes))),
        image_shape=shape,
        train_count=job.batch_size,
        eval_count=job.batch_size,
        mean=(MEAN,) * 3,
        std=(STD,) * 3,
        resize_ratio=1.0,
    )


def export(job: "Job", folder: str) -> None:
    """Writes the network as export.py does: a SavedModel for TensorFlow Serving."""
    # An export is built in float32, whatever precision it computes in.
    keras.config.set_dtype_policy("float32")
    shape = (job.image_size, job.image_size, 3)
    graph = network.trace(ResNetV2(job.net.depth, input_shape=shape), shape)
    graph = rewriting.rewrite(graph)[-1].graph
    graph = saved_model.rewrite(graph, job.precision.removeprefix("mixed_"))[-1].graph
    saved_model.write(graph, _info(job, shape), folder)


def _training(config, batches, shape, job):
    info = _info(job, shape)
    plan = make_compute_plan(config, Machine.here())
    strategy = make_strategy(plan)
    with strategy.scope():
        model = ResNetV2(config.depth, input_shape=shape)
        schedule = optimizer.make_schedule(config, info.train_count)
        state = make_state(config, model, optimizer.make_optimizer(config, schedule, model))
    step = TrainStep(state, config, info, plan, strategy)
    iterator = feed(strategy, lambda shard: batches)

    def take(steps):
        start = time.perf_counter()
        for report in [step(iterator) for _ in range(steps)]:
            report.numpy()
        return time.perf_counter() - start

    return take


def _inference(config, batches, shape, job):
    model, info = ResNetV2(config.depth, input_shape=shape), _info(job, shape)

    # Compiled by XLA where training is, as Keras' predict is.
    @tf.function(jit_compile=make_compute_plan(config, Machine.here()).xla)
    def infer(images):
        return model(info.normalize(images), training=False)

    def take(steps):
        start = time.perf_counter()
        for logits in [infer(images) for images, _ in batches.take(steps)]:
            logits.numpy()
        return time.perf_counter() - start

    return take
