"""What a run does between its steps: it logs, measures, evaluates and saves."""

import contextlib
import math
import typing

import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.distributed_input import (
    feed_evaluation,
    feed_training,
    naming_unreadable,
)
from keras_preact.training.interruption import Interruption
from keras_preact.training.reporting.propagation_recorder import PropagationRecorder
from keras_preact.training.reporting.writer import Writer
from keras_preact.training.steps.bn_statistics import Recomputation, ReplicaStatistics
from keras_preact.training.steps.evaluation import Evaluation, evaluate, make_eval_step
from keras_preact.training.steps.optimizer import StepSchedule
from keras_preact.training.steps.step_metrics import DivergenceError, Reports
from keras_preact.training.steps.train_state import TrainState


class Milestones:
    """Logs, measures, evaluates and saves; keeps what is needed for that since the last time.

    Args:
        config: of the run.
        data: to train and evaluate on.
        state: of the run.
        schedule: the optimizer's schedule.
        strategy: over which replicas a batch is spread.
        checkpoints: of the run.
        writer: of the run's files.
        interruption: tells when to give up an evaluation.
        probe: measures signal and gradient; None in processes that do not.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        state: TrainState,
        schedule: StepSchedule,
        strategy: tf.distribute.Strategy,
        checkpoints: Checkpoints,
        writer: Writer,
        interruption: Interruption,
        probe: PropagationRecorder | None = None,
    ):
        self.config, self.data, self.state, self.schedule = config, data, state, schedule
        self.strategy, self.checkpoints, self.writer = strategy, checkpoints, writer
        self.interruption, self._probe = interruption, probe
        self.statistics = ReplicaStatistics(state, strategy)
        self._eval_step = make_eval_step(state.model, data.info, strategy, state.evaluated())
        self._recompute = Recomputation(state, data.info, strategy)

    def begin(self, run_state: RunState) -> None:
        """What has been done so far."""
        self.reshuffles, self.best_accuracy = run_state.reshuffles, run_state.best_accuracy
        self.reports = Reports(run_state.step, run_state.reports)

    def feed(self, start: int):
        """An iterator over the training batches from a step on."""
        return feed_training(
            self.strategy,
            self.data,
            self.config.global_batch_size,
            seed=self.config.seed,
            start_step=start,
            augmentation=self.config.augmentation,
            reshuffles=self.reshuffles,
        )

    def naming_unreadable(self, start: int, steps: int) -> contextlib.AbstractContextManager:
        """A context for steps from `start` on, in which images that cannot be read are named."""

        def indices():
            options = {"seed": self.config.seed, "reshuffles": self.reshuffles}
            batch_size = self.config.global_batch_size
            for step in range(start, start + steps):
                yield from self.data.train_indices(step, batch_size, **options)

        return naming_unreadable(self.data, "train", indices)

    def check(self) -> int:
        """Looks at the steps but the newest, and at saving.

        Returns:
            How many processes asked to stop.

        Raises:
            DivergenceError: if a step was not finite.
            SaveError: if the run could not be saved twice in a row.
        """
        stop_requests, bad = self.reports.look_back()
        if bad:
            self._diverged(bad)
        self.checkpoints.check()
        return stop_requests

    def log(self, done: int, show: bool) -> None:
        """The means since the last log; show says whether as a line, too."""
        means = self._collect()
        weights = [tf.convert_to_tensor(variable) for variable in self.state.trainable]
        weight_norm = float(tf.linalg.global_norm(weights))
        self.writer.log(done, means, self._rate(done), weight_norm, show)

    def record_propagation(self, done: int) -> None:
        """Measures signal and gradient in each unit, unless this step has been recorded.

        To be called by all processes, as a run that has diverged is refused in all.
        """
        self._refuse_divergence(done)
        if self._probe is None or self.writer.has_propagation(done):
            return
        try:
            self.writer.propagation(self._probe.measure(done))
        except ArithmeticError as error:
            self.writer.line(f"No record of signal and gradient after step {done:,}: {error}")
        self.restart_clocks()

    def evaluate(self) -> Evaluation | None:
        """Evaluates the merged state; None where asked to stop meanwhile."""
        self.statistics.merge()
        batches, steps = feed_evaluation(self.strategy, self.data, self.config.global_batch_size)
        with naming_unreadable(self.data, "eval", lambda: range(self.data.info.eval_count)):
            return evaluate(self._eval_step, batches, steps, lambda: self.interruption.requested)

    def evaluate_and_save(self, done: int) -> Evaluation | None:
        """Evaluates, and saves; where asked to stop meanwhile, saves without: None."""
        # As they were, so that a run that stops here comes to the same evaluation.
        statistics = self.statistics.gather()
        if self.config.recompute_bn_batches:
            count = self.config.recompute_bn_batches
            with self.naming_unreadable(done, count):
                self._recompute(self.feed(done), count)
        evaluation = self.evaluate()
        if evaluation is None:
            self._save(done, statistics, evaluated=False)
            return None
        if not math.isfinite(evaluation.loss):
            self._diverged(f"The evaluation loss was {evaluation.loss} after step {done:,}")
        self._collect()
        means = self.reports.since_evaluation()
        self.writer.evaluation(done, evaluation, means, self._rate(done))
        is_best = evaluation.accuracy > self.best_accuracy
        self.best_accuracy = max(evaluation.accuracy, self.best_accuracy)
        self.writer.curves(self.schedule.drop_steps)
        if done == self.schedule.train_steps:
            self.writer.confusion(done, evaluation)
        # Last: once it is saved, none of this is done again.
        self._save(done, self.statistics.gather(), best=is_best)
        self.restart_clocks()
        return evaluation

    def save(self, done: int, evaluated: bool = True) -> None:
        """Saves after so many steps, in the background.

        Args:
            done: steps taken.
            evaluated: False where an evaluation is due after them, and has not been made.
        """
        self._save(done, self.statistics.gather(), evaluated)
        self.restart_clocks()

    def restart_clocks(self) -> None:
        """What has been done lately is not typical of training."""
        self.writer.restart_clock()
        self.interruption.restart_clock()

    def _save(self, done, statistics, evaluated=True, best=False):
        self._collect()
        self._refuse_divergence(done)
        batch_size, count = self.config.global_batch_size, self.data.info.train_count
        epoch = done * batch_size // count
        run_state = RunState(
            step=done,
            epoch=epoch,
            step_in_epoch=done - epoch * count // batch_size,
            seed=self.config.seed,
            reshuffles=self.reshuffles,
            best_accuracy=self.best_accuracy,
            evaluated=evaluated,
            reports=self.reports.rows_since_evaluation(),
            replica_statistics=statistics,
        )
        self.writer.save(run_state, best)

    def _collect(self):
        """Means over the steps since the last call; refuses what is not finite."""
        means, bad = self.reports.collect()
        if bad:
            self._diverged(bad)
        return means

    def _refuse_divergence(self, done):
        if bad := self.reports.read():
            self._diverged(bad)
        # The loss of a step tells of the variables before it.
        floats = [v for v in self.state.trainable + self.state.non_trainable if v.dtype.is_floating]
        if not tf.reduce_all([tf.reduce_all(tf.math.is_finite(variable)) for variable in floats]):
            self._diverged(f"A variable was no longer finite after step {done:,}")

    def _rate(self, done):
        return float(self.schedule(done - 1))

    def _diverged(self, what) -> typing.NoReturn:
        self.checkpoints.wait()
        kept = self.checkpoints.newest
        raise DivergenceError(
            f"{what}. "
            + (f"Last good checkpoint: {kept}." if kept else "No checkpoint had been saved yet.")
        )
