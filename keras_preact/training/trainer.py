"""The training loop."""

import contextlib
import dataclasses
import typing

import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.distribution.distributed_input import UnreadableError
from keras_preact.training.distribution.strategies import check_same_start, wait_for_all
from keras_preact.training.interruption import Interruption
from keras_preact.training.milestones import Milestones
from keras_preact.training.reporting.profile import Profile
from keras_preact.training.reporting.propagation_recorder import PropagationRecorder
from keras_preact.training.reporting.writer import Writer
from keras_preact.training.steps.evaluation import Evaluation
from keras_preact.training.steps.optimizer import StepSchedule
from keras_preact.training.steps.step_metrics import DivergenceError
from keras_preact.training.steps.train_state import TrainState
from keras_preact.training.steps.train_step import TrainStep
from keras_preact.training.timetable import Timetable


class Trainer:
    """Takes the steps of a run, from its newest checkpoint or from the first.

    Args:
        config: of the run.
        data: to train and evaluate on.
        state: what the steps change, made in the scope of the strategy.
        schedule: the optimizer's schedule.
        plan: how the run computes.
        strategy: over which replicas a batch is spread.
        checkpoints: of the run.
        writer: of the run's files; one that writes nothing in all processes but one.
        interruption: tells when to stop.
        probe: measures signal and gradient; None in processes that do not.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        state: TrainState,
        schedule: StepSchedule,
        plan: ComputePlan,
        strategy: tf.distribute.Strategy,
        checkpoints: Checkpoints,
        writer: Writer,
        interruption: Interruption,
        probe: PropagationRecorder | None = None,
    ):
        self.config, self.data, self.strategy = config, data, strategy
        self.checkpoints, self.writer, self.interruption = checkpoints, writer, interruption
        self.model, self.train_steps = state.model, schedule.train_steps
        self.several_workers = plan.workers > 1
        self.timetable = Timetable(config, schedule.train_steps, data.info.train_count)
        self.train_step = TrainStep(state, config, data.info, plan, strategy)
        self.milestones = Milestones(
            config, data, state, schedule, strategy, checkpoints, writer, interruption, probe
        )
        self.profile = Profile(
            config.profile_steps if writer.writes else None, writer.folder.tensorboard
        )

    def restore(self) -> RunState:
        """Restores the newest checkpoint, in all processes the same; the start, without any.

        Raises:
            ValueError: as `Checkpoints.restore` does, or if processes see different ones.
        """
        run_state = self.checkpoints.restore(tidy=self.writer.writes)
        check_same_start(self.strategy, run_state.step if run_state else 0)
        if run_state is None:
            return RunState(seed=self.config.seed)
        if run_state.seed != self.config.seed:
            raise ValueError(
                f"The checkpoints in {self.writer.folder} must be of its run, whose seed is "
                f"{self.config.seed}. Received: that of step {run_state.step:,}, of seed "
                f"{run_state.seed}"
            )
        self.milestones.statistics.scatter(run_state.replica_statistics)
        return run_state

    def fit(self, run_state: RunState) -> Evaluation:
        """Trains to the end of the schedule.

        Args:
            run_state: where the run stands.

        Returns:
            The evaluation after the last step.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite, and may not be rolled back;
                checkpoints stay as they were.
            Interrupted: when asked to stop, once a checkpoint has been saved.
            SaveError: if the run cannot be saved twice in a row.
            UnreadableError: if an image can no longer be read; where single steps are taken
                by one process, the steps before are saved first.
        """
        if run_state.step >= self.train_steps and run_state.evaluated:
            self.writer.line(f"The run is complete: it has taken all {run_state.step:,} steps.")
            if (evaluation := self.milestones.evaluate()) is None:
                raise self.interruption.interrupted(f"after the last step, {run_state.step:,}")
            return evaluation
        with (
            contextlib.closing(self.profile),
            self.interruption,
            self.writer.writing(run_state, self.train_steps),
        ):
            self.writer.example(self.data, run_state.step)
            while True:
                try:
                    return self._train_from(run_state)
                except DivergenceError as error:
                    run_state = self._roll_back(error)

    def _train_from(self, run_state):
        done = run_state.step
        self.milestones.begin(run_state)
        batches, evaluation, warm = self.milestones.feed(done), None, False
        if self.timetable.propagates(done):
            self.milestones.record_propagation(done)
        if not run_state.evaluated:
            evaluation = self._evaluate(done)
        elif done == 0 and self.config.on_nan == "rollback":
            self.milestones.save(done)
        while done < self.train_steps:
            steps = self.timetable.steps_ahead(done)
            self.profile.before(done + 1)
            self.milestones.reports.add(self._take(batches, done, steps))
            done += steps
            self.profile.after(done)
            self.writer.advance(steps)
            if not warm:
                # The first call compiles; its time says nothing of the others.
                warm = True
                self.milestones.reports.wait()
                self.milestones.restart_clocks()
            self._stop_requests = self.milestones.check()
            # First, so that nothing that is shown or measured can keep it from being saved.
            if self._asked_to_stop():
                self._save_and_stop(done)
            evaluation = self._do_what_is_due(done)
        self.checkpoints.wait()
        return evaluation

    def _take(self, batches, done, steps):
        try:
            with self.milestones.naming_unreadable(done, steps):
                return self.train_step(batches, steps, self.interruption.requested)
        except UnreadableError:
            # Nothing has changed since the step before, unless several were to be taken.
            if steps == 1 and done and not self.several_workers:
                self.milestones.save(done)
                self.checkpoints.wait()
                self.writer.line(f"Stopped after step {done:,}, saved as {self.checkpoints.newest}")
            raise

    def _do_what_is_due(self, done):
        evaluates = self.timetable.evaluates(done)
        if self.timetable.logs(done):
            self.milestones.log(done, show=not evaluates)
        if self.timetable.propagates(done):
            self.milestones.record_propagation(done)
        if evaluates:
            return self._evaluate(done)
        if self.timetable.saves(done):
            self.milestones.save(done)
        return None

    def _evaluate(self, done):
        evaluation = self.milestones.evaluate_and_save(done)
        if evaluation is None:
            self._stop(done)
        return evaluation

    def _asked_to_stop(self):
        if self.several_workers:
            # All workers read the same sum, and so stop after the same step.
            return self._stop_requests > 0
        return self.interruption.requested

    def _save_and_stop(self, done):
        self.milestones.save(done, evaluated=not self.timetable.evaluates(done))
        self._stop(done)

    def _stop(self, done) -> typing.NoReturn:
        self.checkpoints.wait()
        saved_as = self.checkpoints.newest
        raise self.interruption.interrupted(f"after step {done:,}, saved as {saved_as}")

    def _roll_back(self, error):
        """The run_state to go on from, where the run may go on; else raises the error again."""
        advice = "A lower learning rate or a longer warm-up may help."
        rolls_back = self.config.on_nan == "rollback"
        if rolls_back:
            # No process may look for the newest checkpoint before it has been written.
            wait_for_all(self.strategy)
        if not rolls_back or self.checkpoints.newest is None:
            raise DivergenceError(f"{error} Training has stopped. {advice}") from error
        earlier = self.milestones.reshuffles
        if len(earlier) >= self.config.max_rollbacks:
            raise DivergenceError(
                f"{error} Training has stopped: it has been rolled back {len(earlier)} times, as "
                f"often as max_rollbacks allows. {advice}"
            ) from error
        run_state = self.restore()
        reshuffles = (*(min(step, run_state.step) for step in earlier), run_state.step)
        self.writer.line(
            f"{error} Rolled back to step {run_state.step:,}, to go on with another data order: "
            f"{len(reshuffles)} of at most {self.config.max_rollbacks} times."
        )
        self.writer.set_back(run_state)
        return dataclasses.replace(run_state, reshuffles=reshuffles)
