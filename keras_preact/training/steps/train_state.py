"""The variables that training steps change and checkpoints hold."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_preact.layers.batch_norm import bn_layers
from keras_preact.models.looped_network import LoopedNetwork, stacked, unstacked
from keras_preact.models.unit_loops import Remat
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.steps.freezing import Freezing, part_of
from keras_preact.training.steps.loss_scale import INITIAL_SCALE
from keras_preact.training.steps.optimizer import Lines, Optimizer
from keras_preact.training.steps.rows import WIDTH, Part, RowLayout

Arrays = Mapping[str, Mapping[str, np.ndarray]]
# The groups of a checkpoint that are needed to evaluate and export.
GROUPS_OF_WEIGHTS = ("model", "averages")
NO_STATISTICS = np.zeros((0, 0), np.float32)


class Rows(NamedTuple):
    """The values that a step changes: tensors, or the variables that hold them.

    Args:
        weights: row of the trainable variables.
        moments: rows of the optimizer: SGD's velocity, or means of gradients and their squares.
        statistics: row of the other float32 variables, such as BN statistics.
        average_weights, average_statistics: rows of averages; one line if there are none.
        loss_scale: scalar.
        good_steps: number of steps since the last change of the loss scale, a float32 scalar.
        others: variables of a user's layers that are neither weights nor float32.
    """

    weights: Any
    moments: tuple
    statistics: Any
    average_weights: Any
    average_statistics: Any
    loss_scale: Any
    good_steps: Any
    others: tuple

    def read(self) -> "Rows":
        """Returns the values of variables."""
        return tf.nest.map_structure(tf.convert_to_tensor, self)

    def assign(self, values: "Rows") -> None:
        """Sets variables, each replica its own."""
        tf.nest.map_structure(lambda variable, value: variable.assign(value), self, values)


class TrainState:
    """The variables of a run, in rows; see `rows.RowLayout`.

    Steps change the rows alone. The variables of the network are brought up to date, and
    changes to them taken over, in the context of `in_network`. Create the state in the scope of
    the strategy: each replica then has its own copy.

    Args:
        network: a built model.
        optimizer: names the variables that do not decay.
        ema_decay: decay of the averaged weights; None for none.
        function: computes the network; by default one with loops.
        freezing: parts that learn later, slower or never.

    Attributes:
        rows: variables that hold the values.
        phase: number of the phase of `freezing` that steps are in.
        trained: part of the row of weights that steps change.
        lines: what the optimizer must know of the lines of `trained`.
        kept_statistics: lines of the row of statistics that steps leave as they are, boolean
            (lines, 1); None for no line.

    Raises:
        ValueError: if a trainable variable is not of float32.
    """

    def __init__(
        self,
        network: keras.Model,
        optimizer: Optimizer,
        ema_decay: float | None = None,
        function: LoopedNetwork | None = None,
        freezing: Freezing = Freezing(),  # noqa: B008 - frozen
    ):
        self.network = network
        self.function = function = function or LoopedNetwork(network)
        self.optimizer, self.ema_decay, self.freezing = optimizer, ema_decay, freezing
        # Those that decay come first: a slice then tells them from the others.
        trainable = sorted(network.trainable_variables, key=lambda v: v.path in optimizer.undecayed)
        self.weights = RowLayout(trainable, function.stacks)
        self._non_trainable = network.non_trainable_variables
        statistics = [v for v in self._non_trainable if v.dtype == "float32"]
        self.statistics = RowLayout(statistics, function.stacks)
        self._others = [
            v for v in self._non_trainable if v.dtype != "float32" and not is_random_state(v)
        ]
        self._random = _RandomStates(self._non_trainable, function.stacks)
        self._strategy = tf.distribute.get_strategy()
        self.rows = self._make_rows()
        self.phase: int | None = None
        self.enter_phase_of(0)

    def enter_phase_of(self, step: int) -> None:
        """Prepares for what is traced next: step `step`, counted from 0, and steps like it."""
        number, phase = self.freezing.phase_of(step)
        if number == self.phase:
            return
        self.phase = number
        for layer in bn_layers(self.network):
            layer.keeps_statistics = part_of(layer.gamma.path) in phase.kept_bn
        paths = [path for path in self.weights.shapes if part_of(path) not in phase.frozen]
        self.trained = Part(self.weights, paths)
        self.lines = self._describe_lines(phase)
        kept = self.statistics.lines_where(lambda path: part_of(path) in phase.kept_bn)
        self.kept_statistics = kept if kept.any() else None

    def _describe_lines(self, phase):
        """Describes the lines that steps of a phase change to the optimizer."""
        part, freezing = self.trained, self.freezing
        decayed = [path for path in part.paths if path not in self.optimizer.undecayed]
        factors = {path: freezing.factor(path) for path in part.paths}
        is_plain = all(factor == 1 for factor in factors.values())
        begins = {path: freezing.first_step(part_of(path), phase) for path in part.paths}
        lengths = [self.weights.lines([path]) for path in decayed]
        return Lines(
            sum(lengths),
            np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
            None if is_plain else part.repeated(factors),
            part.repeated(begins) if any(begins.values()) else None,
        )

    def _make_rows(self):
        def variable(value):
            return tf.Variable(value, trainable=False)

        # On the host: thousands of eager operations would take seconds.
        values = {path: _on_host(v) for path, v in by_path(self.network.variables).items()}
        rows = [layout.from_arrays(values) for layout in (self.weights, self.statistics)]
        averages = rows if self.averages_weights else [tf.zeros([1, WIDTH])] * 2
        return Rows(
            weights=variable(rows[0]),
            moments=tuple(variable(tf.zeros_like(rows[0])) for _ in self.optimizer.saved_names),
            statistics=variable(rows[1]),
            average_weights=variable(averages[0]),
            average_statistics=variable(averages[1]),
            loss_scale=variable(INITIAL_SCALE),
            good_steps=variable(0.0),
            others=tuple(variable.value for variable in self._others),
        )

    @property
    def averages_weights(self) -> bool:
        """Whether weights are averaged."""
        return self.ema_decay is not None

    def values(
        self,
        weights: tf.Tensor,
        statistics: tf.Tensor,
        others: Sequence[tf.Tensor],
        seed: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Returns the values of all variables for `function`.

        Args:
            weights, statistics: rows.
            others: as in `Rows`.
            seed: int32 (2,), of which the states of random layers become functions: they then
                need no saving, and differ between replicas. None leaves them as they are.
        """
        values = self.weights.unpack(weights) | self.statistics.unpack(statistics)
        others = {v.path: value for v, value in zip(self._others, others, strict=True)}
        return values | stacked(others, self.function.stacks) | self._random.values(seed)

    def split(self, changed: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tuple]:
        """Returns the row of statistics and the others from what `function` returns."""
        others = unstacked(changed, self.function.stacks)
        return self.statistics.pack(changed), tuple(others[v.path] for v in self._others)

    def evaluated(self) -> tuple[tf.Variable, tf.Variable]:
        """Returns the rows of weights and statistics to evaluate: the averages, if any."""
        rows = self.rows
        if self.averages_weights:
            return rows.average_weights, rows.average_statistics
        return rows.weights, rows.statistics

    def evaluated_logits(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the logits of normalized images with the values to evaluate, in a replica."""
        rows = map(tf.convert_to_tensor, self.evaluated())
        values = self.values(*rows, self.rows.read().others)
        return self.function(values, images, training=False)[0]

    @contextlib.contextmanager
    def in_network(self) -> Iterator[keras.Model]:
        """Brings the network's variables up to date, and takes over what changes within."""
        self._strategy.run(self._replica_fill)
        yield self.network
        self._strategy.run(self._replica_take_over)

    def _replica_fill(self):
        values = self.weights.unpack(tf.convert_to_tensor(self.rows.weights))
        values |= self.statistics.unpack(tf.convert_to_tensor(self.rows.statistics))
        variables = by_path(self.network.variables)
        for path, value in unstacked(values, self.function.stacks).items():
            variables[path].assign(value)

    def _replica_take_over(self):
        values = stacked(by_path(self.network.variables), self.function.stacks)
        self.rows.weights.assign(self.weights.pack(values))
        self.rows.statistics.assign(self.statistics.pack(values))

    def statistics_to_values(self, rows: np.ndarray) -> np.ndarray:
        """Returns the values of a replica's statistics, then of their averages: (values,).

        Args:
            rows: of the statistics and of their averages, one behind the other.
        """
        lines = self.statistics.shape[0]
        parts = (rows[:lines], rows[lines:]) if self.averages_weights else (rows[:lines],)
        return np.concatenate([self.statistics.to_values(part) for part in parts])

    def statistics_from_values(self, values: np.ndarray) -> np.ndarray:
        """Returns the rows of `statistics_to_values`."""
        parts = np.split(values, 2) if self.averages_weights else [values]
        rows = [self.statistics.from_values(part) for part in parts]
        if not self.averages_weights:
            rows.append(np.zeros((1, WIDTH), np.float32))
        return np.concatenate(rows)

    def to_arrays(
        self, step: int, replica_statistics: np.ndarray = NO_STATISTICS
    ) -> dict[str, dict[str, np.ndarray]]:
        """Returns copies of all values on the host, as a checkpoint holds them.

        Groups and names depend on the network alone: neither on precision nor on replicas.

        Args:
            step: number of steps taken.
            replica_statistics: of each replica, (replicas, values); their means take the place of
                the first replica's.
        """
        rows = tf.nest.map_structure(_on_host, self.rows)
        if len(replica_statistics):
            means = replica_statistics.mean(axis=0)
            # A mean of equal numbers may differ from them in the last bit.
            first = replica_statistics[0]
            means = np.where((replica_statistics == first).all(axis=0), first, means)
            means = self.statistics_from_values(means)
            lines = self.statistics.shape[0]
            rows = rows._replace(statistics=means[:lines], average_statistics=means[lines:])
        arrays = {
            **self._weights_to_arrays(rows),
            "optimizer": {"iteration": np.array(step, np.int64)},
            "loss_scale": {
                "scale": rows.loss_scale,
                "good_steps": rows.good_steps.astype(np.int32),
            },
        }
        for end, row in zip(self.optimizer.saved_names, rows.moments, strict=True):
            moment = self.weights.to_arrays(row)
            arrays["optimizer"] |= {_saved_name(path, end): v for path, v in moment.items()}
        return arrays

    def _weights_to_arrays(self, rows):
        own = self.weights.to_arrays(rows.weights) | self.statistics.to_arrays(rows.statistics)
        kept = by_path(v for v in self.network.variables if v.path not in own)
        own |= {path: _on_host(variable) for path, variable in kept.items()}
        groups = {"model": own}
        if self.averages_weights:
            groups["averages"] = self.weights.to_arrays(
                rows.average_weights
            ) | self.statistics.to_arrays(rows.average_statistics)
        return groups

    def from_arrays(self, arrays: Arrays) -> None:
        """Sets all values, on every replica, to those of `to_arrays`."""
        rows, model, saved = self.rows, arrays["model"], arrays["optimizer"]
        rows.weights.assign(self.weights.from_arrays(model))
        rows.statistics.assign(self.statistics.from_arrays(model))
        for end, row in zip(self.optimizer.saved_names, rows.moments, strict=True):
            moment = {path: saved[_saved_name(path, end)] for path in self.weights.shapes}
            row.assign(self.weights.from_arrays(moment))
        if self.averages_weights:
            averages = arrays["averages"]
            rows.average_weights.assign(self.weights.from_arrays(averages))
            rows.average_statistics.assign(self.statistics.from_arrays(averages))
        rows.loss_scale.assign(arrays["loss_scale"]["scale"])
        rows.good_steps.assign(arrays["loss_scale"]["good_steps"].astype(np.float32))
        in_rows = self.weights.shapes | self.statistics.shapes
        for path, variable in by_path(self.network.variables).items():
            if path not in in_rows:
                variable.assign(model[path])
        self._strategy.run(self._replica_fill)


def make_state(
    config: TrainConfig,
    network: keras.Model,
    optimizer: Optimizer,
    plan: ComputePlan | None = None,
    freezing: Freezing = Freezing(),  # noqa: B008 - frozen
) -> TrainState:
    """Makes the state of a run; call it in the scope of the strategy.

    Args:
        config: configuration of the run.
        network: a built model.
        optimizer: for the network's trainable variables.
        plan: compute plan; None for steps that XLA does not compile.
        freezing: of the run.
    """
    function = LoopedNetwork(
        network,
        plan is None or plan.loops,
        Remat(config.remat, config.remat_units),
        plan is not None and plan.compiles_units,
    )
    return TrainState(network, optimizer, config.ema_decay, function, freezing)


class _RandomStates:
    """The states of the random layers of a network, by key."""

    def __init__(self, variables, stacks):
        self._stacks = stacks
        self._variables = {v.path: v for v in variables if is_random_state(v)}
        self._indices = {v.path: index for index, v in enumerate(variables) if is_random_state(v)}

    def values(self, seed):
        """Returns functions of a seed, int32 (2,); the variables' own values where it is None."""
        if not self._variables:
            return {}
        if seed is None:
            own = {path: variable.value for path, variable in self._variables.items()}
            return stacked(own, self._stacks)
        # As of stateless_fold_in(seed, index), for all indices at once.
        first = tf.random.experimental.stateless_fold_in(seed, 0)[0]
        indices = stacked(self._indices, self._stacks, np.stack)
        values = {}
        for key, index in indices.items():
            numbers = tf.constant(index, tf.int32)
            state = tf.stack([tf.fill(numbers.shape, first), numbers], axis=-1)
            state = tf.bitcast(state, tf.uint32)
            values[key] = tf.cast(state, self._variables[key].dtype)
        return values


def by_path(variables: Iterable[keras.Variable]) -> dict[str, tf.Variable]:
    """Returns the variables by path, such as `stem_conv/kernel`."""
    return {variable.path: variable.value for variable in variables}


def is_random_state(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.path.endswith("seed_generator_state")


def _saved_name(path, end):
    # As Keras' optimizers call them, which held the momentum in checkpoints of earlier versions.
    return f"{path.replace('/', '_')}_{end}"


def _on_host(variable):
    """Copies a variable's value on the first replica."""
    # `numpy` may return a view: TensorFlow copies a variable that has one to change it.
    return np.array(getattr(variable, "values", [variable])[0])
