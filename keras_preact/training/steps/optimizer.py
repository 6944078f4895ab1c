"""The optimizers: SGD as in the paper, AdamW and LAMB, on rows of many variables."""

import abc
import dataclasses
import math
from typing import ClassVar

import keras
import numpy as np
import tensorflow as tf

from keras_preact.training.config import TrainConfig
from keras_preact.training.steps.schedules import Schedule


@dataclasses.dataclass(frozen=True)
class Lines:
    """What an optimizer must know of the lines of a row; see `rows.RowLayout`.

    Args:
        decayed: number of first lines, those of the variables that decay.
        variables: number of the variable of each decayed line, from 0 on: int32 (decayed,). Only
            LAMB needs it.
        factors: on the learning rate of each line, (lines, 1); None for 1.
        first_steps: number of steps before each line began to learn, float32 (lines, 1); None
            for 0.
    """

    decayed: int
    variables: np.ndarray | None = None
    factors: np.ndarray | None = None
    first_steps: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Optimizer(abc.ABC):
    """Changes the weights of a run.

    Args:
        schedule: learning rate by step.
        weight_decay: at least 0.
        undecayed: paths of variables that do not decay.

    Attributes:
        saved_names: of its own rows, as the names of their variables end in checkpoints.
    """

    saved_names: ClassVar[tuple[str, ...]]
    schedule: Schedule
    _: dataclasses.KW_ONLY
    weight_decay: float = 0.0
    undecayed: frozenset[str] = frozenset()

    @abc.abstractmethod
    def update(
        self,
        weights: tf.Tensor,
        moments: tuple[tf.Tensor, ...],
        gradient: tf.Tensor,
        step: tf.Tensor,
        lines: Lines,
    ) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        """Returns the row of weights and the optimizer's own rows after a step.

        Args:
            weights: row before the step.
            moments: the optimizer's rows before the step, zeros at first.
            gradient: row.
            step: number of steps before, int64.
            lines: of these rows.
        """

    def _plus_decay(self, values, weights, lines):
        """Adds weight_decay * weights in the lines that decay."""
        if not (self.weight_decay and lines.decayed):
            return values
        decayed = values[: lines.decayed] + self.weight_decay * weights[: lines.decayed]
        rest = values[lines.decayed :]
        return tf.concat([decayed, rest], axis=0) if rest.shape[0] else decayed

    def _rate(self, step, lines):
        rate = self.schedule(step)
        return rate if lines.factors is None else rate * lines.factors


@dataclasses.dataclass(frozen=True)
class MomentumSGD(Optimizer):
    """Momentum SGD with coupled weight decay: g + weight_decay * w enters the momentum.

    In Caffe's form, which the paper used, v = momentum * v - rate * g; w = w + v. A drop of the
    rate does not change v: steps of the old rate follow the drop, ten times too long for some
    steps. In Torch's form v = momentum * v + g; w = w - rate * v: the whole step has the new rate.
    At a constant rate both are the same. Keras' own SGD has Caffe's form, but decouples the decay:
    it shrinks w outside of v.

    Args:
        momentum: at least 0, below 1.
        form: "caffe" or "torch".
        nesterov: whether w moves by the velocity of the step after, whose gradient is not known
            yet: by momentum * v - rate * g in Caffe's form.
    """

    _: dataclasses.KW_ONLY
    momentum: float = 0.9
    form: str = "caffe"
    nesterov: bool = False

    @property
    def saved_names(self):
        return ("momentum",) if self.momentum else ()

    def update(self, weights, moments, gradient, step, lines):
        gradient = self._plus_decay(gradient, weights, lines)
        rate = self._rate(step, lines)
        if not moments:
            return weights - rate * gradient, ()
        [velocity] = moments
        if self.form == "torch":
            velocity = self.momentum * velocity + gradient
            change = self.momentum * velocity + gradient if self.nesterov else velocity
            return weights - rate * change, (velocity,)
        velocity = self.momentum * velocity - rate * gradient
        change = self.momentum * velocity - rate * gradient if self.nesterov else velocity
        return weights + change, (velocity,)


@dataclasses.dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay.

    w = w - rate * (m / (sqrt(v) + epsilon) + weight_decay * w), where m and v are the means of
    gradients and of their squares, divided by 1 - beta1^t and 1 - beta2^t at the t-th step of a
    variable. Source: Loshchilov and Hutter, "Decoupled Weight Decay
    Regularization" (2019), algorithm 2. PyTorch's AdamW is the same; Keras' adds epsilon before
    the division by 1 - beta2^t.

    Args:
        beta1, beta2: decay of the means of gradients and of their squares.
        epsilon: above 0.
    """

    saved_names = ("momentum", "velocity")
    _: dataclasses.KW_ONLY
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def update(self, weights, moments, gradient, step, lines):
        change, moments = self._change(weights, moments, gradient, step, lines)
        return weights - self._rate(step, lines) * change, moments

    def _change(self, weights, moments, gradient, step, lines):
        """Returns what the rate multiplies, and the moments."""
        first, second = moments
        first = self.beta1 * first + (1 - self.beta1) * gradient
        second = self.beta2 * second + (1 - self.beta2) * tf.square(gradient)
        count = tf.cast(step + 1, tf.float32)
        if lines.first_steps is not None:
            count = count - lines.first_steps
        mean = first / _one_minus_power(self.beta1, count)
        deviation = tf.sqrt(second / _one_minus_power(self.beta2, count))
        change = mean / (deviation + self.epsilon)
        return self._plus_decay(change, weights, lines), (first, second)


@dataclasses.dataclass(frozen=True)
class Lamb(AdamW):
    """AdamW's change, scaled for each variable: w = w - rate * |w| / |change| * change.

    Source: You et al., "Large Batch Optimization for Deep Learning" (2020), algorithm 2, with the
    identity for phi. As in timm's LAMB, decay is part of the change whose norm counts, and
    variables that do not decay move by AdamW's change itself. Other than timm's, variables that
    would decay are scaled at a weight_decay of 0 as well, and the gradient is not clipped to a
    global norm of 1 before: see clip_norm of a run. Keras' Lamb decays outside the scaled change.
    """

    def update(self, weights, moments, gradient, step, lines):
        change, moments = self._change(weights, moments, gradient, step, lines)
        if lines.decayed:
            change = change * _trust_ratios(weights, change, lines)
        return weights - self._rate(step, lines) * change, moments


def _one_minus_power(beta, count):
    """Returns 1 - beta^count, where float32 would lose three digits at the first steps."""
    log = math.log(beta) if beta else -math.inf
    return -tf.math.expm1(count * log)


def _trust_ratios(weights, change, lines):
    """Returns |w| / |change| of the variable of each line, (lines, 1); 1 where either is 0."""
    rows = [row[: lines.decayed] for row in (weights, change)]
    sums = tf.stack([tf.reduce_sum(tf.square(row), axis=1) for row in rows], axis=1)
    count = int(lines.variables[-1]) + 1
    norms = tf.sqrt(tf.math.unsorted_segment_sum(sums, lines.variables, count))
    of_weights, of_change = tf.unstack(norms, axis=1)
    usable = (of_weights > 0) & (of_change > 0)
    ratios = tf.where(usable, of_weights / tf.where(usable, of_change, 1.0), 1.0)
    ratios = tf.gather(ratios, lines.variables)[:, None]
    others = weights.shape[0] - lines.decayed
    return tf.concat([ratios, tf.ones([others, 1])], axis=0) if others else ratios


def clipped(gradient: tf.Tensor, norm: tf.Tensor, clip_norm: float) -> tf.Tensor:
    """Returns a row of gradients of a global norm of clip_norm at most.

    Args:
        gradient: row.
        norm: of the row.
        clip_norm: above 0.
    """
    return gradient * (clip_norm / tf.maximum(norm, clip_norm))


def make_optimizer(config: TrainConfig, schedule: Schedule, model: keras.Model) -> Optimizer:
    """Makes the optimizer of a run for a model's variables."""
    config = config.resolved()
    ends = ("gamma", "beta") if config.optimizer == "sgd" else ("gamma", "beta", "bias")
    paths = [variable.path for variable in model.trainable_variables]
    spared = [path for path in paths if path.rpartition("/")[2] in ends]
    options = {
        "weight_decay": config.weight_decay,
        "undecayed": frozenset() if config.decay_bn else frozenset(spared),
    }
    if config.optimizer == "sgd":
        own = {"form": config.momentum_form, "nesterov": config.nesterov}
        return MomentumSGD(schedule, momentum=config.momentum, **own, **options)
    kind = AdamW if config.optimizer == "adamw" else Lamb
    own = {name: getattr(config, name) for name in ("beta1", "beta2", "epsilon")}
    return kind(schedule, **own, **options)
