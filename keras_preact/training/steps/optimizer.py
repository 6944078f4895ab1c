"""The paper's SGD, and its learning rate by step."""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from keras_preact.training.config import TrainConfig

# Source: "Identity Mappings in Deep Residual Networks", appendix.
PAPER_SCHEDULE_STEPS = 64_000
PAPER_DROPS = (1 / 2, 3 / 4)  # of the schedule: 32,000 and 48,000 steps


@keras.saving.register_keras_serializable(package="keras_preact")
@dataclasses.dataclass(frozen=True)
class StepSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A constant warm-up, then a constant rate that drops at given steps.

    Args:
        learning_rate: from the warm-up to the first drop.
        drop_steps: from each of these steps on, the rate is multiplied by drop_factor.
        drop_factor: see drop_steps.
        warmup_steps: number of first steps at warmup_learning_rate.
        warmup_learning_rate: see warmup_steps.
        train_steps: number of steps of the training.
    """

    learning_rate: float
    drop_steps: tuple[int, ...] = ()
    drop_factor: float = 0.1
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.01
    train_steps: int | None = None

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the float32 learning rate of a step, counted from 0."""
        step = tf.cast(step, tf.int64)
        drops = tf.reduce_sum(tf.cast(step >= tf.constant(self.drop_steps, tf.int64), tf.float32))
        rate = self.learning_rate * tf.pow(tf.constant(self.drop_factor, tf.float32), drops)
        return tf.where(step < self.warmup_steps, self.warmup_learning_rate, rate)

    def get_config(self):
        return dataclasses.asdict(self)


def make_schedule(config: TrainConfig, train_count: int) -> StepSchedule:
    """Makes the schedule of a run on train_count images.

    Raises:
        ValueError: if the warm-up is not over by the first drop.
    """

    def steps(epochs):
        return math.ceil(epochs * train_count / config.global_batch_size)

    schedule_steps, drop_steps = config.schedule_steps, config.drop_steps
    if config.schedule_epochs is not None:
        schedule_steps = steps(config.schedule_epochs)
    if config.drop_epochs is not None:
        drop_steps = tuple(steps(epochs) for epochs in config.drop_epochs)
    train_steps = config.train_steps
    if config.train_epochs is not None:
        train_steps = steps(config.train_epochs)
    if schedule_steps is None:
        schedule_steps = PAPER_SCHEDULE_STEPS
    if drop_steps is None:
        drop_steps = tuple(round(share * schedule_steps) for share in PAPER_DROPS)
    train_steps = train_steps or schedule_steps
    scale = train_steps / schedule_steps if config.scale_schedule else 1
    schedule = StepSchedule(
        config.learning_rate,
        tuple(round(step * scale) for step in drop_steps),
        config.drop_factor,
        round(config.warmup_steps * scale),
        config.warmup_learning_rate,
        train_steps,
    )
    if schedule.drop_steps and schedule.warmup_steps > schedule.drop_steps[0]:
        raise ValueError(
            f"warmup_steps must end before the first drop, at step {schedule.drop_steps[0]}. "
            f"Received: warmup_steps={schedule.warmup_steps}"
        )
    return schedule


@dataclasses.dataclass(frozen=True)
class MomentumSGD:
    """Momentum SGD with coupled weight decay: g + weight_decay * w enters the momentum.

    v = momentum * v - rate * (g + weight_decay * w); w = w + v. This is Caffe's form,
    which the paper used: a drop of the rate does not change v. Keras' own SGD decouples the
    decay: it shrinks w outside of v.

    Args:
        schedule: learning rate by step.
        momentum: at least 0, below 1.
        weight_decay: at least 0.
        undecayed: paths of variables that do not decay.
    """

    schedule: StepSchedule
    momentum: float = 0.9
    weight_decay: float = 0.0
    undecayed: frozenset[str] = frozenset()

    def update(
        self,
        weights: tf.Tensor,
        velocity: tf.Tensor,
        gradient: tf.Tensor,
        step: tf.Tensor,
        decayed_lines: int,
        factors: np.ndarray | None = None,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the rows of weights and of v after a step; see `rows.RowLayout`.

        Args:
            weights: row before the step.
            velocity: row of v before the step.
            gradient: row of g.
            step: number of steps before, int64.
            decayed_lines: number of first lines that decay.
            factors: on the learning rate of each line, (lines, 1); None for 1.
        """
        if self.weight_decay and decayed_lines:
            decayed = gradient[:decayed_lines] + self.weight_decay * weights[:decayed_lines]
            rest = gradient[decayed_lines:]
            gradient = tf.concat([decayed, rest], axis=0) if rest.shape[0] else decayed
        rate = self.schedule(step)
        if factors is not None:
            rate = rate * factors
        velocity = self.momentum * velocity - rate * gradient
        return weights + velocity, velocity


def make_optimizer(config: TrainConfig, schedule: StepSchedule, model: keras.Model) -> MomentumSGD:
    """Makes the optimizer of a run for a model's variables."""
    paths = [variable.path for variable in model.trainable_variables]
    bn = [path for path in paths if path.rpartition("/")[2] in ("gamma", "beta")]
    undecayed = frozenset() if config.decay_bn else frozenset(bn)
    return MomentumSGD(schedule, config.momentum, config.weight_decay, undecayed)
