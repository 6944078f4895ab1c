"""Training steps: forward pass, backward pass, all-reduce, update; many in one launch."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.device_images import MOST_STEPS, DeviceImages, Draws
from keras_preact.training.steps import loss_scale
from keras_preact.training.steps.mixing import draw, mix
from keras_preact.training.steps.objective import Objective, make_objective
from keras_preact.training.steps.optimizer import clipped
from keras_preact.training.steps.rows import WIDTH, norm
from keras_preact.training.steps.train_state import Rows, TrainState

# The metrics of a step: the elements of a float32 vector.
REPORT = (
    "loss",
    "correct",
    "gradient_norm",
    "applied",
    "loss_scale",
    "stop_requests",
    "wait_seconds",
)
# In place of the loss, which is never negative.
_MISSING = -1.0


@dataclasses.dataclass(eq=False)
class TrainStep:
    """Takes training steps, several in one launch.

    On one device that holds the images, a launch is one function, which XLA compiles with its
    loop over steps where the plan says so. Otherwise TensorFlow runs the loop, and XLA compiles
    what one replica computes alone.

    Args:
        state: rows that the steps change.
        config: configuration of the run.
        info: gives the normalization of images.
        plan: compute plan.
        strategy: gives the replicas.
        images: on the devices; None for batches of images from the host.
        objective: the training loss; by default the one of the configuration, with classes of
            equal weight.
        traced: wraps the function of a launch before it is traced; see `StartTimes`.

    Attributes:
        seconds_per_step: mean over all processes at the last launch, the same in each: their
            wall time at the launch before; 0 if not known yet.
    """

    state: TrainState
    config: TrainConfig
    info: DatasetInfo
    plan: ComputePlan
    strategy: tf.distribute.Strategy
    images: DeviceImages | None = None
    objective: Objective | None = None
    traced: Callable[[Callable], Callable] = lambda function: function

    def __post_init__(self):
        self.objective = self.objective or make_objective(self.config, self.info)
        self.seconds_per_step = 0.0
        self._own_seconds = 0.0
        # A variable, for a launch that fails at a batch: the steps before that one are taken.
        with tf.device(self.state.rows.weights.device):
            self._reports = tf.Variable(tf.zeros([MOST_STEPS, len(REPORT) + 1]), trainable=False)
        self._prepare()

    def _prepare(self):
        """Makes the functions that are traced for the phase of the state."""
        self._phase, self._is_compiled, plan = self.state.phase, False, self.plan
        for name in ("_alone", "_differentiate", "_update"):
            vars(self).pop(name, None)
        if self.takes_draws:
            self._function = tf.function(
                self.traced(self._launch_from_draws), jit_compile=plan.xla_loops
            )
        else:
            self._function = tf.function(self.traced(self._launch))
        if self.takes_draws and plan.xla_loops:
            return
        if plan.replicas == 1:
            self._alone = tf.function(self._alone, jit_compile=plan.compiles_steps)
        # Synchronized BN cannot exchange statistics inside another function.
        elif not self.config.sync_bn:
            self._differentiate = tf.function(self._differentiate, jit_compile=plan.compiles_steps)
            self._update = tf.function(self._update, jit_compile=plan.compiles_steps)

    @property
    def takes_draws(self) -> bool:
        """Whether a launch is one function that takes `Draws`, in place of an iterator."""
        return self.images is not None and self.plan.replicas == 1

    def __call__(
        self, batches: Draws | Iterator, start: int, steps: int = 1, stop: bool = False
    ) -> np.ndarray:
        """Takes steps, and waits for them.

        Args:
            batches: of `Dataset.train`: `Draws` if takes_draws, else a distributed iterator over
                (images, labels) or (images, labels, weights), or over (indices, draws) of
                images on the devices.
            start: number of steps taken before.
            steps: number of steps, at most MOST_STEPS, and of one phase; see `Freezing`.
            stop: whether this process asks the run to stop.

        Returns:
            float32 (steps, len(REPORT)), the same in each process: the mean loss of the
            global batch before the update, without weight decay; its accuracy; the
            norm of the gradient before it is clipped; whether the update was applied; the loss
            scale; the number of replicas whose process asks to stop; seconds spent waiting for
            input, NaN in deterministic runs that read it from the host.
        """
        begin = time.perf_counter()
        self.state.enter_phase_of(start)
        if self.state.phase != self._phase:
            self._prepare()
        if self.takes_draws:
            batches = batches.take(steps)
        with tf.device("CPU"):
            asked = tf.constant([float(stop), self._own_seconds])
            arguments = (tf.constant(start, tf.int64), tf.constant(steps), asked)
            if self.takes_draws:
                batches = tuple(map(tf.constant, batches))
        if self.takes_draws:
            reports = self.strategy.run(self._function, args=(*batches, *arguments))
        else:
            reports = self._function(batches, *arguments)
        # Asks for the results once the last step is over: the host has nothing to do meanwhile.
        reports = reports.numpy()[:steps]
        return self._read(reports, begin)

    def completed(self) -> np.ndarray:
        """Returns the reports of the steps that a launch took before it failed."""
        rows = self._reports.numpy()[:, : len(REPORT)]
        return rows[: np.argmin(np.append(rows[:, 0] != _MISSING, False))]

    def _read(self, reports, begin):
        self.seconds_per_step = float(reports[-1, -1])
        # The first launch compiles; its time is not typical.
        if self._is_compiled:
            self._own_seconds = (time.perf_counter() - begin) / len(reports)
        self._is_compiled = True
        return reports[:, : len(REPORT)]

    def _launch_from_draws(self, indices, draws, start, steps, asked):
        def body(step, reports):
            batch = indices[step], draws[step]
            report = self._replica_step(batch, start + tf.cast(step, tf.int64), asked)
            return step + 1, reports.write(step, tf.concat([report, [0.0]], axis=0))

        reports = tf.TensorArray(tf.float32, MOST_STEPS, element_shape=[len(REPORT) + 1])
        _, reports = tf.while_loop(
            lambda step, _: step < steps, body, (0, reports), parallel_iterations=1
        )
        return _seconds_last(reports.stack())

    def _launch(self, iterator, start, steps, asked):
        self._reports.assign(tf.fill(self._reports.shape, _MISSING))

        # In turn, so that waiting for input is timed apart from computing.
        def body(step):
            before = self._now([])
            with tf.control_dependencies([before]):
                batch = next(iterator)
            after = self._now(tf.nest.flatten(batch, expand_composites=True))
            wait_seconds = tf.cast(after - before, tf.float32)
            number = start + tf.cast(step, tf.int64)
            reports = self.strategy.run(self._replica_step, args=(batch, number, asked))
            report = self.strategy.experimental_local_results(reports)[0]
            self._reports[step].assign(_seconds_last(tf.concat([report, [wait_seconds]], axis=0)))
            return (step + 1,)

        tf.while_loop(lambda step: step < steps, body, (0,), parallel_iterations=1)
        return self._reports.read_value()

    def _now(self, after):
        """Reads the clock in seconds once some tensors are computed; NaN in deterministic runs."""
        if self.config.deterministic:
            # TensorFlow refuses to read a clock.
            return tf.constant(math.nan, tf.float64)
        with tf.control_dependencies(after):
            return tf.timestamp()

    def _replica_step(self, batch, step, asked):
        """Takes one step of a replica.

        Args:
            batch: (images, labels), (images, labels, weights) or (indices, draws) of its images.
            step: number of steps before, int64.
            asked: of its process, float32 (2,): whether to stop, and seconds per step.

        Returns:
            REPORT without wait_seconds, then seconds per step: float32 (len(REPORT),).
        """
        rows = self.state.rows.read()
        if self.plan.replicas == 1:
            values, report = self._alone(rows, batch, step, asked)
        else:
            replica = tf.distribute.get_replica_context()
            number = tf.convert_to_tensor(replica.replica_id_in_sync_group)
            gradient, *changed, sums = self._differentiate(rows, batch, step, number)
            sums = tf.concat([sums, asked], axis=0)
            gradient, sums = _sum_over_replicas(replica, gradient, sums)
            sums = tf.concat([sums[:-1], sums[-1:] / self.plan.replicas], axis=0)
            values, report = self._update(rows, gradient, *changed, sums, step)
        self.state.rows.assign(values)
        return report

    def _alone(self, rows, batch, step, asked):
        """Computes one step where there is one replica."""
        *gradient_and_changed, sums = self._differentiate(rows, batch, step, tf.constant(0))
        sums = tf.concat([sums, asked], axis=0)
        return self._update(rows, *gradient_and_changed, sums, step)

    def _differentiate(self, rows, batch, step, replica):
        """Sums gradients, loss and correct answers over the parts of this replica's batch.

        Returns:
            gradient: of the scaled loss, the part of a row that is trained; the row of
            statistics and the others after the last part; the sums of loss and correct answers,
            divided by the global batch size.
        """
        parts = self.config.gradient_accumulation_steps
        weights, statistics, others = rows.weights, rows.statistics, rows.others
        total = None
        for part, piece in enumerate(zip(*(tf.split(v, parts) for v in batch), strict=True)):
            # In turn: parts computed at once would save no memory.
            after = [] if total is None else tf.nest.flatten(total)
            with tf.control_dependencies(after):
                seed = self._seed(step, replica, part)
                values = self.state.values(weights, statistics, others, seed)
                gradients, changed, sums = self._gradients(values, piece, seed, rows.loss_scale)
                statistics, others = self.state.split(changed)
                one = gradients, sums
                total = one if total is None else tf.nest.map_structure(tf.add, total, one)
        gradients, sums = total
        gradient = self.state.trained.pack(gradients)
        return gradient, statistics, others, sums

    def _gradients(self, values, batch, seed, scale):
        """Computes the forward and backward pass of one part.

        Returns:
            gradients of the scaled loss by key, of what is trained; values of the other
            variables after the pass, by key; loss and number of correct answers. Gradients, loss
            and number are sums over the part, divided by the global batch size.
        """
        config = self.config
        batch = self.images.train_batch(*batch) if self.images else batch
        images, labels, weights = batch if len(batch) == 3 else (*batch, None)
        inputs = self.info.normalize(images)
        mixture = draw(config.mixup_alpha, config.cutmix_alpha, seed, self.info.image_shape)
        if mixture is not None:
            inputs = mix(inputs, mixture.pixels)
        keys = self.state.trained.keys
        # What is frozen is not watched: the backward pass ends above it.
        watched = [values[key] for key in keys]
        with tf.GradientTape() as tape:
            tape.watch(watched)
            logits, changed = self.state.function(
                values,
                inputs,
                training=True,
                differentiates=True,
                learning=frozenset(self.state.trained.paths),
                compiles=self.plan.xla and not self.plan.compiles_units,
            )
            sums = self.objective.sums(logits, labels, weights, mixture, config.global_batch_size)
            scaled = sums[0] * scale if self._scales else sums[0]
        # A layer of a user's may not use each of its weights.
        gradients = tape.gradient(scaled, watched, unconnected_gradients="zero")
        return dict(zip(keys, gradients, strict=True)), changed, sums

    def _update(self, rows, gradient, statistics, others, sums, step):
        """Computes all values after a step, and its report."""
        state, scale = self.state, rows.loss_scale
        if self._scales:
            gradient = gradient / scale
        gradient_norm = norm(gradient)
        finite = tf.math.is_finite(gradient_norm)
        trained = state.trained
        if self.config.clip_norm is not None:
            gradient = clipped(gradient, gradient_norm, self.config.clip_norm)
        weights, moments = state.optimizer.update(
            trained.of(rows.weights),
            tuple(map(trained.of, rows.moments)),
            gradient,
            step,
            state.lines,
        )
        averages = rows.average_weights, rows.average_statistics
        if state.averages_weights:
            averages = self._averages(rows, weights, statistics, step)
        weights = trained.put(rows.weights, weights)
        moments = tuple(map(trained.put, rows.moments, moments))
        values = Rows(weights, moments, statistics, *averages, scale, rows.good_steps, others)
        applied, reported_scale = tf.constant(1.0), tf.constant(1.0)
        if self._scales:
            # A choice of values: a choice of branches would make the host wait for the device.
            values = tf.nest.map_structure(
                lambda new, old: tf.where(finite, new, old), values, rows
            )
            changed = loss_scale.update(scale, rows.good_steps, finite)
            values = values._replace(loss_scale=changed[0], good_steps=changed[1])
            applied, reported_scale = tf.cast(finite, tf.float32), scale
        loss, right, stops, seconds = tf.unstack(sums)
        report = [loss, right, gradient_norm, applied, reported_scale, stops, seconds]
        return values, tf.stack(report)

    def _averages(self, rows, weights, statistics, step):
        """Computes the rows of averages from the trained part of the weights, and statistics."""
        state = self.state
        averages = state.trained.of(rows.average_weights), rows.average_statistics
        averages = _averages(averages, (weights, statistics), state.ema_decay, step + 1)
        # A mean of equal numbers may differ from them in the last bit.
        if state.kept_statistics is not None:
            kept = tf.where(state.kept_statistics, rows.average_statistics, averages[1])
            averages = averages[0], kept
        return state.trained.put(rows.average_weights, averages[0]), averages[1]

    @property
    def _scales(self):
        return self.plan.precision == "mixed_float16"

    def _seed(self, step, replica, part):
        """Returns an int32 (2,) seed from the run's seed, step, replica and part."""
        pieces = self.plan.replicas * self.config.gradient_accumulation_steps
        place = replica * self.config.gradient_accumulation_steps + part
        return tf.stack([self.config.seed % 2**31, tf.cast(step, tf.int32) * pieces + place])


def _averages(averages, values, ema_decay, step):
    """Moves averages towards the values after `step` steps.

    The decay is min(ema_decay, (1 + step) / (10 + step)), as in
    `tf.train.ExponentialMovingAverage`, so that the initial weights are soon forgotten.
    """
    step = tf.cast(step, tf.float32)
    decay = tf.minimum(ema_decay, (1 + step) / (10 + step))
    return tuple(
        decay * average + (1 - decay) * value
        for average, value in zip(averages, values, strict=True)
    )


def _sum_over_replicas(replica, gradient, sums):
    """Sums a row and a vector over replicas, in one all-reduce."""
    last = tf.reshape(tf.pad(sums, [[0, WIDTH - sums.shape[0]]]), [1, WIDTH])
    row = tf.concat([gradient, last], axis=0)
    row = replica.all_reduce(tf.distribute.ReduceOp.SUM, row)
    return row[:-1], row[-1, : sums.shape[0]]


def _seconds_last(reports):
    """Moves the last but one column, seconds per step, behind wait_seconds."""
    return tf.concat([reports[..., :-2], reports[..., -1:], reports[..., -2:-1]], axis=-1)
