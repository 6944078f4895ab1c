"""The training loop."""

import contextlib
import math

import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.training.config import TrainConfig
from keras_preact.training.decision import Decision
from keras_preact.training.evaluation import Evaluation, evaluate, make_eval_step
from keras_preact.training.feeding import feed_evaluation, feed_training
from keras_preact.training.interruption import Interrupted, Interruption
from keras_preact.training.optimizer import StepSchedule
from keras_preact.training.profiling import Profile
from keras_preact.training.reports import Reports
from keras_preact.training.state import TrainState
from keras_preact.training.statistics import Recomputation, make_merge
from keras_preact.training.step import TrainStep
from keras_preact.training.timetable import Timetable
from keras_preact.training.writer import Writer


class DivergenceError(RuntimeError):
    """The loss, or a variable, is no longer finite."""


class Trainer:
    """Takes the steps of a run, from its newest checkpoint or from the first.

    Args:
        config: of the run.
        data: to train and evaluate on.
        state: what the steps change, made in the scope of the strategy.
        schedule: the optimizer's schedule.
        decision: how the run computes.
        strategy: over which replicas a batch is spread.
        writer: of the run's files; one that writes nothing in all processes but one.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        state: TrainState,
        schedule: StepSchedule,
        decision: Decision,
        strategy: tf.distribute.Strategy,
        writer: Writer,
    ):
        self.config, self.data, self.schedule = config, data, schedule
        self.state, self.strategy, self.writer = state, strategy, writer
        self.several_workers = decision.workers > 1
        self.timetable = Timetable(config, schedule.train_steps, data.info.train_count)
        self.train_step = TrainStep(state, config, data.info, decision, strategy)
        self.eval_step = make_eval_step(state.model, data.info, strategy, state.evaluated())
        self.merge = make_merge(state, strategy)
        self.recompute = Recomputation(state, data.info, strategy)
        self.profile = Profile(
            config.profile_steps if writer.writes else None, writer.folder.tensorboard
        )

    def fit(self, start: int) -> Evaluation:
        """Trains to the end of the schedule.

        Args:
            start: the number of steps taken so far.

        Returns:
            The evaluation after the last step.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite; checkpoints stay as they were.
            Interrupted: after SIGINT or SIGTERM, once a checkpoint has been saved.
        """
        if start >= self.schedule.train_steps:
            self.writer.line(f"The run is complete: it has taken all {start:,} steps.")
            return self._evaluate()
        with (
            contextlib.closing(self.profile),
            Interruption() as interruption,
            self.writer.writing(start, self.schedule.train_steps),
        ):
            return self._take_steps(start, interruption)

    def _take_steps(self, start, interruption):
        batches = self._feed(start)
        self.writer.example(self.data, start)
        self.reports = Reports(start)
        done, warm = start, set()
        while done < self.schedule.train_steps:
            steps = self.timetable.steps_ahead(done)
            self.profile.before(done + 1)
            self.reports.add(self.train_step(batches, steps, interruption.requested))
            done += steps
            self.profile.after(done)
            self.writer.advance(steps)
            if (steps > 1) not in warm:
                # The first call compiles; its time says nothing of the others.
                warm.add(steps > 1)
                self.reports.wait()
                self.writer.restart_clock()
            evaluation = self._do_what_is_due(done)
            self._stop_if_asked(done, interruption)
        return evaluation

    def _do_what_is_due(self, done):
        evaluates = self.timetable.evaluates(done)
        if self.timetable.logs(done):
            self._log(done, show=not evaluates)
        if evaluates:
            return self._evaluate_and_save(done)
        if self.timetable.saves(done):
            self._save(done)
        return None

    def _stop_if_asked(self, done, interruption):
        if self.several_workers:
            # All workers read the same sum, and so stop after the same step.
            asked = self.reports.earlier_stop_requests() > 0
        else:
            asked = interruption.requested
        if not asked or done >= self.schedule.train_steps:
            return
        if not self.timetable.saves(done):
            self._save(done)
        self.writer.line(f"Stopped after step {done:,}, saved as {self.writer.newest}")
        raise Interrupted(interruption.signal_number)

    def _feed(self, start):
        return feed_training(
            self.strategy,
            self.data,
            self.config.global_batch_size,
            seed=self.config.seed,
            start_step=start,
            augmentation=self.config.augmentation,
        )

    def _log(self, done, show):
        means = self._collect()
        weights = [tf.convert_to_tensor(variable) for variable in self.state.trainable]
        weight_norm = float(tf.linalg.global_norm(weights))
        self.writer.log(done, means, self._rate(done), weight_norm, show)

    def _collect(self):
        """Means over the steps since the last call; refuses what is not finite."""
        means, bad = self.reports.collect()
        if bad is not None:
            step, loss = bad
            self._diverged(f"The loss was {loss} at step {step:,}")
        return means

    def _rate(self, done):
        return float(self.schedule(done - 1))

    def _evaluate(self):
        self.merge()
        batches, steps = feed_evaluation(self.strategy, self.data, self.config.global_batch_size)
        return evaluate(self.eval_step, batches, steps)

    def _evaluate_and_save(self, done):
        if self.config.recompute_bn_batches:
            self.recompute(self._feed(done), self.config.recompute_bn_batches)
        evaluation = self._evaluate()
        if not math.isfinite(evaluation.loss):
            self._diverged(f"The evaluation loss was {evaluation.loss} after step {done:,}")
        means = self.reports.since_evaluation()
        # In this order: killed in between, the run would take these steps again and
        # write the row anew.
        self.writer.evaluation(done, evaluation, means, self._rate(done))
        self._save(done, evaluation.accuracy)
        self.writer.curves(self.schedule.drop_steps)
        if done == self.schedule.train_steps:
            self.writer.confusion(done, evaluation)
        self.writer.restart_clock()
        return evaluation

    def _save(self, done, accuracy=None):
        self._collect()
        self.merge()
        # The loss of a step tells of the variables before it.
        floats = [v for v in self.state.trainable + self.state.non_trainable if v.dtype.is_floating]
        if not tf.reduce_all([tf.reduce_all(tf.math.is_finite(variable)) for variable in floats]):
            self._diverged(f"A variable was no longer finite after step {done:,}")
        self.writer.save(done, accuracy)
        self.writer.restart_clock()

    def _diverged(self, what):
        kept = self.writer.newest
        raise DivergenceError(
            f"{what}. Training has stopped. A lower learning rate or a longer warm-up may help. "
            + (f"Last good checkpoint: {kept}" if kept else "No checkpoint had been saved yet.")
        )
