"""The paper's SGD, and its learning rate by step."""

import dataclasses
import math
from collections.abc import Sequence

import keras
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


@keras.saving.register_keras_serializable(package="keras_preact")
class SGD(keras.optimizers.SGD):
    """Momentum SGD with coupled weight decay: g + weight_decay * w enters the momentum.

    v = momentum * v - rate * (g + weight_decay * w); w = w + v. This is Caffe's form,
    which the paper used: a drop of the rate does not change v. Keras' own `weight_decay`
    argument is decoupled: it shrinks w outside of v.

    Args:
        learning_rate: a number or a schedule.
        momentum: at least 0, below 1.
        coupled_weight_decay: at least 0.
        undecayed: paths of variables that do not decay.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.1,
        momentum: float = 0.9,
        coupled_weight_decay: float = 0.0,
        undecayed: Sequence[str] = (),
        **kwargs,
    ):
        super().__init__(learning_rate, momentum, **kwargs)
        self.coupled_weight_decay = coupled_weight_decay
        self.undecayed = frozenset(undecayed)

    def build(self, variables):
        self._decays = [variable.path not in self.undecayed for variable in variables]
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        gradient = tf.cast(gradient, variable.dtype)
        if self.coupled_weight_decay and self._decays[index]:
            gradient += tf.cast(self.coupled_weight_decay, variable.dtype) * variable
        if not self.momentum or self.nesterov:
            super().update_step(gradient, variable, learning_rate)
            return
        # One kernel for Keras' five: a deep network has hundreds of small variables.
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=self.momentums[index].value.handle,
            lr=tf.cast(learning_rate, variable.dtype),
            grad=gradient,
            momentum=tf.cast(self.momentum, variable.dtype),
        )

    def get_config(self):
        config = {
            "coupled_weight_decay": self.coupled_weight_decay,
            "undecayed": sorted(self.undecayed),
        }
        return {**super().get_config(), **config}


def make_optimizer(config: TrainConfig, schedule: StepSchedule, model: keras.Model) -> SGD:
    """Makes the optimizer of a run, built for the model's variables."""
    paths = [variable.path for variable in model.trainable_variables]
    bn = [path for path in paths if path.rpartition("/")[2] in ("gamma", "beta")]
    optimizer = SGD(
        schedule, config.momentum, config.weight_decay, undecayed=() if config.decay_bn else bn
    )
    optimizer.build(model.trainable_variables)
    return optimizer
