"""The learning rate of a run by step."""

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

# Source: "Identity Mappings in Deep Residual Networks", appendix.
PAPER_SCHEDULE_STEPS = 64_000
PAPER_DROPS = (1 / 2, 3 / 4)  # of the schedule: 32,000 and 48,000 steps
# Of the schedule, where the length of a linear warm-up is not given.
WARMUP_SHARE = 0.05


@keras.saving.register_keras_serializable(package="keras_preact")
@dataclasses.dataclass(frozen=True)
class StepSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A warm-up, then a constant rate that drops at given steps.

    Args:
        learning_rate: from the warm-up to the first drop.
        drop_steps: from each of these steps on, the rate is multiplied by drop_factor.
        drop_factor: see drop_steps.
        warmup_steps: number of first steps, before the rate is learning_rate.
        warmup_learning_rate: of all these steps, or of the first one if warmup is "linear".
        train_steps: number of steps of the training.
        warmup: "constant", as in the paper, or "linear": rises by the same amount each step.
    """

    learning_rate: float
    drop_steps: tuple[int, ...] = ()
    drop_factor: float = 0.1
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.01
    train_steps: int | None = None
    warmup: str = "constant"

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the float32 learning rate of a step, counted from 0."""
        step = tf.cast(step, tf.int64)
        drops = tf.reduce_sum(tf.cast(step >= tf.constant(self.drop_steps, tf.int64), tf.float32))
        rate = self.learning_rate * tf.pow(tf.constant(self.drop_factor, tf.float32), drops)
        return tf.where(step < self.warmup_steps, _warming_up(self, step), rate)

    def get_config(self):
        return dataclasses.asdict(self)


@keras.saving.register_keras_serializable(package="keras_preact")
@dataclasses.dataclass(frozen=True)
class DecaySchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A warm-up, then a rate that falls evenly, or stays as it is.

    With p from 0 at the end of the warm-up to 1 at schedule_steps, the rate is
    final + (learning_rate - final) * (1 + cos(pi p)) / 2 for "cosine", or * (1 - p) for "linear".

    Args:
        kind: "cosine", as in Loshchilov and Hutter, "SGDR" (2017), without restarts; "linear"; or
            "constant".
        learning_rate: after the warm-up.
        schedule_steps: length of warm-up and fall together; the rate stays final after it.
        final_learning_rate: at the end; "constant" leaves it out.
        warmup_steps, warmup_learning_rate, train_steps, warmup: as in `StepSchedule`.

    Attributes:
        drop_steps: none, for pictures of learning curves.
    """

    drop_steps: ClassVar[tuple[int, ...]] = ()
    kind: str
    learning_rate: float
    schedule_steps: int
    final_learning_rate: float = 0.0
    warmup_steps: int = 0
    warmup_learning_rate: float = 0.01
    train_steps: int | None = None
    warmup: str = "linear"

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Returns the float32 learning rate of a step, counted from 0."""
        step = tf.cast(step, tf.int64)
        rate = tf.constant(self.learning_rate, tf.float32)
        if self.kind != "constant":
            length = max(1, self.schedule_steps - self.warmup_steps)
            share = tf.cast(step - self.warmup_steps, tf.float32) / length
            share = tf.clip_by_value(share, 0.0, 1.0)
            left = (1 + tf.cos(math.pi * share)) / 2 if self.kind == "cosine" else 1 - share
            final = self.final_learning_rate
            rate = final + (self.learning_rate - final) * left
        return tf.where(step < self.warmup_steps, _warming_up(self, step), rate)

    def get_config(self):
        return dataclasses.asdict(self)


Schedule = StepSchedule | DecaySchedule


def _warming_up(schedule, step):
    """The rate of a step of the warm-up."""
    first = schedule.warmup_learning_rate
    if schedule.warmup == "constant" or not schedule.warmup_steps:
        return first
    share = tf.cast(step, tf.float32) / schedule.warmup_steps
    return first + (schedule.learning_rate - first) * share


def make_schedule(config: "TrainConfig", train_count: int) -> Schedule:
    """Makes the schedule of a run on train_count images.

    Raises:
        ValueError: if the warm-up is not over by the first drop, or by the end of a schedule
            without drops.
    """
    config = config.resolved()

    def steps(name):
        epochs = getattr(config, f"{name}_epochs")
        if epochs is None:
            return getattr(config, f"{name}_steps")
        if isinstance(epochs, tuple):
            return tuple(in_steps(each, train_count, config.global_batch_size) for each in epochs)
        return in_steps(epochs, train_count, config.global_batch_size)

    train_steps, schedule_steps, drop_steps = steps("train"), steps("schedule"), steps("drop")
    if schedule_steps is None and config.schedule != "steps":
        schedule_steps = train_steps
    if schedule_steps is None:
        schedule_steps = PAPER_SCHEDULE_STEPS
    if drop_steps is None:
        drop_steps = tuple(round(share * schedule_steps) for share in PAPER_DROPS)
    train_steps = train_steps or schedule_steps
    scale = train_steps / schedule_steps if config.scale_schedule else 1
    warmup_steps = steps("warmup")
    if warmup_steps is None:
        warmup_steps = WARMUP_SHARE * schedule_steps
    warmup_steps = round(warmup_steps * scale)
    first_rate = config.warmup_learning_rate
    if first_rate is None:
        # On the line from 0 before the first step: no step is lost at a rate of 0.
        first_rate = config.learning_rate / (warmup_steps + 1)
    warmup = (warmup_steps, first_rate, train_steps, config.warmup)
    if config.schedule == "steps":
        drops = tuple(round(step * scale) for step in drop_steps)
        schedule = StepSchedule(config.learning_rate, drops, config.drop_factor, *warmup)
        end, name = drops[0] if drops else None, "the first drop"
    else:
        length, final = round(schedule_steps * scale), config.final_learning_rate or 0.0
        schedule = DecaySchedule(config.schedule, config.learning_rate, length, final, *warmup)
        end, name = (None if config.schedule == "constant" else length), "the end of the schedule"
    if end is not None and warmup_steps > end:
        given = "warmup_steps" if config.warmup_epochs is None else "warmup_epochs"
        raise ValueError(
            f"{given} must end before {name}, at step {end}. "
            f"Received: {given}={getattr(config, given)}"
        )
    return schedule


def in_steps(epochs: float, train_count: int, batch_size: int) -> int:
    """Returns the number of steps that complete some epochs."""
    return math.ceil(epochs * train_count / batch_size)
