"""Measures one network's overhead in a process of its own: python -P trial.py < JOB prints JSON."""

import dataclasses
import math
import tempfile
import time
import types
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_preact.benchmark import ours
from keras_preact.benchmark.measure import answer
from keras_preact.benchmark.on_tensorflow import device
from keras_preact.benchmark.overhead import operations
from keras_preact.models import architectures
from keras_preact.training.distribution.device_images import MOST_STEPS
from keras_preact.training.steps.pace import Pace
from keras_preact.training.steps.train_step import REPORT, TrainStep

STEPS_PER_LAUNCH = (1, 7, 50)
# Of each measurement.
LEAST_STEPS = 20
EMPTY_TURNS = 20
LEAST_TURNS, ENOUGH_SECONDS = 5, 60.0
# As CIFAR has: a run draws the order of an epoch at once.
_IMAGES, _MOST_BYTES = 50_000, 2**28
_LEARNING_RATE = 1e-9
# For the compiled function alone.
_BATCHES = 16
# A step at a time until the pace follows them, as their time is known one launch later.
_SETTLING_LAUNCHES = 5


def measure(job: types.SimpleNamespace, enough_seconds: float = ENOUGH_SECONDS) -> dict:
    """Measures launches of steps and the compiled function alone, in turn.

    Args:
        job: a `job.Job`; its steps, if given, take the place of LEAST_STEPS.
        enough_seconds: that the turns take, at least.

    Returns:
        device; xla, whether it compiles the steps; launches: for each number of steps a launch,
        a dictionary with steps; chosen, whether a run chooses that number by itself; pairs of
        milliseconds a step, in launches and in the compiled function alone; empty, milliseconds
        a step in launches of `EmptyStep`; and operations a launch, as `operations.count` returns
        them, None where a profile does not show them.
    """
    keras.config.set_dtype_policy(job.precision)
    training = ours.Training.build(_config(job), _noise(job))
    launches, compiled = Launches(training), CompiledFunction(training)
    counts = _counts(launches, training.step.plan)
    numbers, least = [*STEPS_PER_LAUNCH, launches.settle()], job.steps or LEAST_STEPS
    empty = Launches(training._replace(step=EmptyStep.like(training.step)))
    empty.take(1)
    empties = [[empty.milliseconds(n, least) for _ in range(EMPTY_TURNS)] for n in numbers]
    pairs = _in_turn(launches, compiled, numbers, least, enough_seconds)
    found = [
        {
            "steps": number,
            "chosen": index == len(STEPS_PER_LAUNCH),
            "pairs": of_number,
            "empty": milliseconds,
            "operations": counts and operations.extended(counts, number),
        }
        for index, (number, milliseconds, of_number) in enumerate(
            zip(numbers, empties, pairs, strict=True)
        )
    ]
    return {"device": device()[0], "xla": training.step.plan.xla, "launches": found}


def _counts(launches, plan):
    """Counts the operations of launches, before anything is timed.

    TensorFlow's executor traces cheap operations on the processor alone, and only until it has
    seen each some ninety times.
    """
    launches.take(1)
    counts = {number: profiled(lambda n=number: launches.take(n)) for number in STEPS_PER_LAUNCH}
    shows_all = plan.xla_loops or plan.devices[0].startswith("CPU")
    return counts if shows_all else None


def _in_turn(launches, compiled, numbers, least, enough_seconds):
    """Returns pairs of milliseconds a step for each number of steps a launch."""
    # The first call compiles.
    compiled.milliseconds(least)
    pairs = [[] for _ in numbers]
    begin, before = time.perf_counter(), compiled.milliseconds(least)
    while len(pairs[0]) < LEAST_TURNS or time.perf_counter() - begin < enough_seconds:
        for number, found in zip(numbers, pairs, strict=True):
            taken, after = launches.milliseconds(number, least), compiled.milliseconds(least)
            # Before and after, so that a change of the machine's speed cancels out.
            found.append((taken, (before + after) / 2))
            before = after
    return pairs


class Launches:
    """Takes the steps of a run; the reports reach the host after each launch.

    Args:
        training: gives the step and its batches.
    """

    def __init__(self, training: ours.Training):
        self._training, self._done = training, 0

    def take(self, steps: int) -> None:
        """Takes steps in one launch."""
        self._training.step(self._training.batches, self._done, steps)
        self._done += steps

    def settle(self) -> int:
        """Takes steps as a run does; returns the number of steps a launch that it chooses."""
        pace = Pace(MOST_STEPS)
        for _ in range(_SETTLING_LAUNCHES):
            self.take(pace.next)
            pace.update(self._training.step.seconds_per_step)
        return pace.next

    def milliseconds(self, number: int, least: int) -> float:
        """Returns the time of a step in launches of a number of steps, at least `least` in all."""
        count = -(-least // number)
        start = time.perf_counter()
        for _ in range(count):
            self.take(number)
        return 1e3 * (time.perf_counter() - start) / (count * number)


class EmptyStep(TrainStep):
    """A step that computes nothing: the state stays as it is."""

    @classmethod
    def like(cls, step: TrainStep) -> "EmptyStep":
        """Returns one with the state, plan and images of another step."""
        fields = dataclasses.fields(step)
        return cls(**{field.name: getattr(step, field.name) for field in fields})

    def _alone(self, rows, batch, step, asked):
        # An unused batch would not even be read.
        used = tf.cast(tf.reshape(batch[1], [-1])[:1], tf.float32)
        return rows, tf.concat([used, tf.zeros([len(REPORT) - 3]), asked], axis=0)


class CompiledFunction:
    """Takes steps in the compiled function alone: from one state to the next, on one batch.

    The function is the step's own, which a loop calls. The loop keeps the state; nothing is read
    from variables or written to them. XLA compiles the loop where it does in training.

    Args:
        training: gives the step, the first state and a batch.
    """

    def __init__(self, training: ours.Training):
        step = training.step
        self._in_xla = step.takes_draws and step.plan.xla_loops
        self._alone = step._alone
        self._rows = training.state.rows.read()
        if step.takes_draws:
            arrays = [array[:_BATCHES] for array in training.batches.take(_BATCHES)]
        else:
            arrays = [part[None] for part in next(iter(training.batches))]
        self._batches = [tf.constant(array) for array in arrays]
        self._function = tf.function(self._loop, jit_compile=self._in_xla)

    def milliseconds(self, steps: int) -> float:
        """Returns the time of a step where one call takes them all."""
        with tf.device("CPU"):
            count = tf.constant(steps)
        start = time.perf_counter()
        self._rows, report = self._function(self._rows, self._batches, count)
        report.numpy()
        return 1e3 * (time.perf_counter() - start) / steps

    def _loop(self, rows, batches, steps):
        first = [part[0] for part in batches]
        count = batches[0].shape[0]
        asked = tf.zeros([2])

        def body(step, rows, _):
            # XLA would prepare one batch once, before the loop.
            batch = [part[step % count] for part in batches] if self._in_xla else first
            return step + 1, *self._alone(rows, tuple(batch), tf.cast(step, tf.int64), asked)

        _, rows, report = tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (0, rows, tf.zeros([len(REPORT)])),
            parallel_iterations=1,
        )
        return rows, report


def profiled(take: Callable[[], None]) -> dict:
    """Returns the `operations.count` of a profile of a call."""
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder):
            take()
        return operations.count(operations.read(folder))


def _config(job):
    # So small that no value leaves the range that the processor computes at full speed.
    rates = {"learning_rate": _LEARNING_RATE, "warmup_learning_rate": _LEARNING_RATE}
    return ours.make_config(job).updated(**rates)


def _noise(job):
    shape = (job.image_size, job.image_size, 3)
    count = job.batch_size
    if architectures.resolve(job.net.depth).stem == "cifar":
        count = max(count, min(_IMAGES, _MOST_BYTES // math.prod(shape)))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), np.uint8)
    return ours.make_data(job, images, rng.integers(0, job.net.classes, count, np.int32))


if __name__ == "__main__":
    answer(measure)
