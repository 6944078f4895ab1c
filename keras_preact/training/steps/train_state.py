"""The variables that training steps change and checkpoints hold."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from keras_preact.models.trace_sharing import share_traces
from keras_preact.training.config import TrainConfig
from keras_preact.training.steps.loss_scale import LossScale


class TrainState:
    """A model, its optimizer, the loss scale and, optionally, averaged weights.

    Create it in the scope of the strategy: each replica then has its own copy.

    Args:
        network: a built model.
        optimizer: built for the network's trainable variables.
        ema_decay: decay of the averaged weights; None for none.
        shares_traces: whether equal units share one trace; see `models.trace_sharing`.

    Attributes:
        model: the model to train: the network, or a copy on the same variables that shares traces.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        ema_decay: float | None = None,
        shares_traces: bool = False,
    ):
        self.network = network
        self.model = model = share_traces(network) if shares_traces else network
        self.optimizer = optimizer
        self.ema_decay = ema_decay
        self.loss_scale = LossScale()
        self.averages = {}
        if ema_decay is not None:
            self.averages = {
                path: tf.Variable(variable, trainable=False)
                for path, variable in by_path(model.variables).items()
                if variable.dtype.is_floating
            }

    @property
    def trainable(self) -> list[tf.Variable]:
        return [variable.value for variable in self.model.trainable_variables]

    @property
    def non_trainable(self) -> list[tf.Variable]:
        return [variable.value for variable in self.model.non_trainable_variables]

    def evaluated(self) -> tuple[list[tf.Variable], list[tf.Variable]]:
        """Returns trainable and other variables to evaluate with: the averages, if any."""

        def choose(variables):
            return [self.averages.get(v.path, v.value) for v in variables]

        return choose(self.model.trainable_variables), choose(self.model.non_trainable_variables)

    def statistics(self) -> dict[tuple[str, str], tf.Variable]:
        """Returns the variables that differ between replicas, by group and name in `to_save`.

        These are the BN statistics and their averages.
        """
        own = {v.path: v.value for v in self.model.non_trainable_variables}
        own = {path: value for path, value in own.items() if value.dtype.is_floating}
        averages = {path: self.averages[path] for path in own if path in self.averages}
        return {
            **{("model", path): value for path, value in own.items()},
            **{("averages", path): value for path, value in averages.items()},
        }

    def update_averages(self, step: tf.Tensor) -> None:
        """Moves the averages, if any, towards the weights after `step` steps.

        The decay is min(ema_decay, (1 + step) / (10 + step)), as in
        `tf.train.ExponentialMovingAverage`, so that the initial weights are soon forgotten.
        """
        if not self.averages:
            return
        step = tf.cast(step, tf.float32)
        decay = tf.minimum(self.ema_decay, (1 + step) / (10 + step))
        for path, variable in by_path(self.model.variables).items():
            if path in self.averages:
                average = self.averages[path]
                average.assign(decay * average + (1 - decay) * variable)

    def to_save(self) -> dict:
        """Returns the variables of a checkpoint, under names that depend on the network alone."""
        return {
            **self.weights_to_save(),
            # Without the optimizer's name: Keras numbers optimizers within a process.
            "optimizer": {v.path.partition("/")[2]: v.value for v in self.optimizer.variables},
            "loss_scale": self.loss_scale.variables,
        }

    def weights_to_save(self) -> dict:
        """Returns the part of `to_save` needed to evaluate and export."""
        weights = {"model": by_path(self.model.variables)}
        return {**weights, "averages": self.averages} if self.averages else weights


def make_state(
    config: TrainConfig, network: keras.Model, optimizer: keras.optimizers.Optimizer
) -> TrainState:
    """Makes the state of a run; call it in the scope of the strategy.

    Args:
        config: configuration of the run.
        network: a built model.
        optimizer: built for the network's trainable variables.
    """
    # Synchronized BN cannot exchange statistics inside a shared trace.
    return TrainState(network, optimizer, config.ema_decay, shares_traces=not config.sync_bn)


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Returns the variables by path, such as `stem_conv/kernel`."""
    return {variable.path: variable.value for variable in variables}
