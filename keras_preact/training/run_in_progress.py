"""A run in progress: its state, and what its steps and actions do with it."""

import contextlib
import math
import typing
from collections.abc import Iterator

import numpy as np

from keras_preact.data import Dataset
from keras_preact.support.console import say
from keras_preact.training import class_weights, own_units
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution import device_images
from keras_preact.training.distribution.device_images import MOST_STEPS, DeviceImages, Draws
from keras_preact.training.distribution.distributed_input import (
    UnreadableError,
    feed_training,
    naming_unreadable,
)
from keras_preact.training.distribution.strategies import Devices, check_same_start, wait_for_all
from keras_preact.training.interruption import Interruption
from keras_preact.training.monitor import Monitor
from keras_preact.training.reporting.start_times import StartTimes
from keras_preact.training.reporting.writer import Writer
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.bn_statistics import Recomputation, ReplicaStatistics
from keras_preact.training.steps.evaluation import Evaluator
from keras_preact.training.steps.objective import make_objective
from keras_preact.training.steps.pace import Pace
from keras_preact.training.steps.rows import are_finite
from keras_preact.training.steps.schedules import make_schedule
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation, chosen_monitor
from keras_preact.training.steps.step_metrics import DivergenceError, Means, StepMetrics
from keras_preact.training.steps.train_state import TrainState
from keras_preact.training.steps.train_step import TrainStep

_ADVICE = "A lower learning rate or a longer warm-up may help."


class Run:
    """A run in progress: the objects that its steps and actions share.

    It begins at step 0; `restore` takes it to its newest checkpoint.

    Args:
        config: configuration of the run.
        data: images to train and evaluate on.
        devices: compute plan and strategy.
        state: weights and all else that steps change, made in the scope of the strategy.
        folder: of the run, locked.
        interruption: tells when to stop.
        times: of the start so far; default: it begins now.

    Attributes:
        schedule: learning rate by step.
        checkpoints: saves and restores.
        writer: prints, and writes metrics and pictures; silent in all processes but one.
        done: number of steps taken.
        reshuffles: steps at which a rollback drew a new data order.
        class_weights: weight of each class by name; None where classes are not weighted.
        monitor: the best evaluation so far.
        evaluation: the newest; None before this process has evaluated.
        evaluated: whether every evaluation due so far has been made.
        has_unsaved_evaluation: whether the newest evaluation is in no checkpoint yet.
        step_metrics: metrics of the steps since the last log and evaluation.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        devices: Devices,
        state: TrainState,
        folder: RunFolder,
        interruption: Interruption,
        times: StartTimes | None = None,
    ):
        self.config, self.data, self.devices = config, data, devices
        self.state, self.folder, self.interruption = state, folder, interruption
        self._times = times or StartTimes()
        self.schedule = make_schedule(config, data.info.train_count)
        self.train_steps = self.schedule.train_steps
        self.checkpoints = Checkpoints(
            folder.checkpoints,
            state,
            config.keep_checkpoints,
            say,
            folder.run_id,
            folder.check_ours,
        )
        unit = own_units.label(config.unit)
        title = f"{state.network.name}, {unit}, on {data.info.name}"
        self.writer = Writer(folder, config, data.info, title, devices.writes)
        plan, strategy = devices.plan, devices.strategy
        images = None
        if device_images.fits(data, plan):
            images = DeviceImages(data, config.augmentation, strategy, plan.xla)
        recorded = folder.class_weights() if config.resume else None
        self.class_weights = class_weights.of_run(config.class_weights, data, recorded)
        objective = make_objective(config, data.info, self.class_weights)
        self._train_step = TrainStep(
            state, config, data.info, plan, strategy, images, objective, self._times.traced
        )
        self._evaluator = Evaluator(
            state.network, data, plan, strategy, state.evaluated_logits, images
        )
        self._pace = Pace(MOST_STEPS, config.steps_per_loop)
        self._statistics = ReplicaStatistics(state, strategy)
        self._recompute = Recomputation(state, data.info, strategy)
        self.evaluation: Evaluation | MultiLabelEvaluation | None = None
        figure = chosen_monitor(config.monitor, data.info.multi_label)
        self.monitor = Monitor(figure, config.early_stopping_epochs, self.epoch)
        self._example_step: int | None = None
        self._go_on_from(RunState(seed=config.seed))

    def _go_on_from(self, run_state: RunState) -> None:
        self.done, self.evaluated = run_state.step, run_state.evaluated
        self.reshuffles = run_state.reshuffles
        self.monitor.restore(run_state)
        self._csv_bytes = run_state.csv_bytes
        self.step_metrics = StepMetrics(run_state.step, run_state.step_metrics)
        self.has_unsaved_evaluation = self._is_best = False
        # Between steps things are as in the step before: a resumed run finds them so, too.
        self.state.enter_phase_of(max(0, run_state.step - 1))

    @property
    def stops_early(self) -> bool:
        """Whether the run ends before its last step, as no evaluation was better for too long."""
        is_evaluation = self.done > 0 and self.evaluates(self.done) and self.evaluated
        return self.done < self.train_steps and is_evaluation and self.monitor.stops(self.done)

    @property
    def is_over(self) -> bool:
        """Whether no step is left to be taken."""
        return self.done >= self.train_steps or self.stops_early

    @property
    def is_complete(self) -> bool:
        """Whether the run is over and its end has been evaluated."""
        return self.is_over and self.evaluated

    def epoch(self, done: int) -> int:
        """Returns the number of whole epochs in `done` steps."""
        return done * self.config.global_batch_size // self.data.info.train_count

    def next_evaluation(self, done: int) -> int:
        """Returns the first step after `done` that completes eval_epochs epochs, or the run."""
        images = self.data.info.train_count * self.config.eval_epochs
        evaluations = done * self.config.global_batch_size // images
        step = -(-(evaluations + 1) * images // self.config.global_batch_size)
        return min(step, self.train_steps)

    def evaluates(self, done: int) -> bool:
        """Whether an evaluation is due after `done` steps."""
        return self.next_evaluation(done - 1) == done

    def restore(self) -> None:
        """Restores the newest checkpoint; without one, the run begins at step 0.

        Raises:
            ValueError: as `Checkpoints.restore` does, or if processes restore different steps.
        """
        run_state = self.checkpoints.restore(tidy=self.devices.writes)
        check_same_start(self.devices.strategy, run_state.step if run_state else 0)
        if run_state is None:
            self._go_on_from(RunState(seed=self.config.seed))
            return
        if run_state.seed != self.config.seed:
            raise ValueError(
                f"The checkpoints in {self.folder} must be of its run, whose seed is "
                f"{self.config.seed}. Received: the checkpoint of step {run_state.step:,}, of seed "
                f"{run_state.seed}"
            )
        self._statistics.scatter(run_state.replica_statistics)
        self._go_on_from(run_state)

    @contextlib.contextmanager
    def in_session(self) -> Iterator[None]:
        """Opens the writer's files, and turns signals into requests to stop."""
        with self.interruption, contextlib.closing(self.writer):
            self.writer.begin(self.done, self._csv_bytes, self.train_steps)
            self._example_step = self.done
            yield

    def _show_example(self):
        """Writes augmented images for TensorBoard, once: after the first launch, not before it."""
        if self._example_step is not None:
            self.writer.example(self.data, self._example_step)
            self._example_step = None

    def batches(self) -> Iterator | Draws:
        """Returns the training batches from the next step on, as the steps take them."""
        order = self.data.train_order(
            self.config.global_batch_size, self.config.seed, self.reshuffles
        )
        if self._train_step.takes_draws:
            return Draws(order, self.done)
        if self._train_step.images:
            return device_images.feed_draws(self.devices.strategy, order, self.done)
        return self._image_batches()

    def _image_batches(self):
        return feed_training(
            self.devices.strategy,
            self.data,
            self.config.global_batch_size,
            seed=self.config.seed,
            start_step=self.done,
            augmentation=self.config.augmentation,
            reshuffles=self.reshuffles,
        )

    def take(self, batches: Iterator | Draws, most: int) -> None:
        """Takes the steps of one launch: as many as fit into two seconds, or steps_per_loop.

        Args:
            batches: from `batches`.
            most: number of steps, at most.

        Raises:
            UnreadableError: if an image can no longer be read. A run of one process is saved
                after the last step before.
            SaveError: if saving failed twice in a row.
        """
        start, phase = self.done, self.state.phase
        steps = min(most, self._pace.next, self.state.freezing.steps_left(start))
        try:
            with self._naming_unreadable(steps):
                stop = self.interruption.requested
                compiler = "XLA's compilation" if self.devices.plan.xla else "graph optimization"
                with self._times.launch(steps, compiler):
                    rows = self._train_step(batches, start, steps, stop)
        except UnreadableError:
            if self.devices.plan.workers == 1:
                self._add(self._train_step.completed())
                self._stop_unread()
            raise
        self._add(rows)
        self._tell_start()
        self._show_example()
        self._pace.update(self._train_step.seconds_per_step)
        if self.state.phase != phase:
            # The first launch after a thaw compiles; its time is not typical.
            self.restart_clocks()

    def _tell_start(self):
        """Prints and records how long the start took, once that is known."""
        if self.is_over:
            self._times.finish()
        if told := self._times.told():
            self.writer.line(told)
            for row in self.state.function.unrolled:
                self.writer.line(f"No loop over {row}")
            if self.devices.writes:
                self.folder.keep_start_seconds(self._times.seconds, self.devices.plan)

    def _add(self, rows):
        if not len(rows):
            return
        self.step_metrics.add(rows)
        self.done += len(rows)
        self.evaluated = not self.evaluates(self.done)
        self.writer.advance(len(rows))

    def _stop_unread(self):
        if self.done:
            self.save()
            self.checkpoints.wait()
            self.writer.line(
                f"Stopped after step {self.done:,}, saved as {self.checkpoints.newest}"
            )

    def is_asked_to_stop(self) -> bool:
        """Checks all steps, and background saving.

        Returns:
            Whether to save and stop; all processes return the same after the same step.

        Raises:
            DivergenceError: if a step was not finite.
            SaveError: if saving failed twice in a row.
        """
        if self.step_metrics.bad:
            self._diverged(self.step_metrics.bad)
        self.checkpoints.check()
        if self.devices.plan.workers > 1:
            # A sum over all workers: they stop after the same step.
            return self.step_metrics.stop_requests > 0
        return self.interruption.requested

    def stop(self) -> typing.NoReturn:
        """Waits for the newest checkpoint, then raises Interrupted."""
        self.checkpoints.wait()
        saved_as = self.checkpoints.newest
        raise self.interruption.interrupted(f"after step {self.done:,}, saved as {saved_as}")

    def means(self) -> Means | None:
        """Returns means over the steps since the last call; None if there were none.

        Raises:
            DivergenceError: if a step was not finite.
        """
        means, bad = self.step_metrics.collect()
        if bad:
            self._diverged(bad)
        return means

    def evaluate(self) -> Evaluation | MultiLabelEvaluation | None:
        """Recomputes BN statistics if configured, merges them over replicas, and evaluates.

        Returns:
            The evaluation; None if asked to stop meanwhile: the run has then been saved.

        Raises:
            DivergenceError: if the loss is not finite.
        """
        # A run that stops here saves these, and repeats the evaluation.
        before = self._statistics.gather()
        if count := self.config.recompute_bn_batches:
            with self._naming_unreadable(count):
                self._recompute(self._image_batches(), count)
        evaluation = self.evaluate_as_it_is()
        if evaluation is None:
            self._save(before)
        elif not math.isfinite(evaluation.loss):
            self._diverged(f"The evaluation loss was {evaluation.loss} after step {self.done:,}")
        else:
            self._is_best = self.monitor.add(evaluation, self.done)
            self.evaluation, self.evaluated, self.has_unsaved_evaluation = evaluation, True, True
        return evaluation

    def evaluate_as_it_is(
        self, data: Dataset | None = None
    ) -> Evaluation | MultiLabelEvaluation | None:
        """Evaluates without recomputing BN statistics; returns None if asked to stop meanwhile.

        Args:
            data: to evaluate on in place of the run's; see `Dataset.for_test`.
        """
        self._statistics.merge()
        evaluator = self._evaluator
        if data is not None:
            state, devices = self.state, self.devices
            evaluator = Evaluator(
                state.network, data, devices.plan, devices.strategy, state.evaluated_logits
            )
        data = data or self.data
        with naming_unreadable(data, "eval", lambda: range(data.info.eval_count)):
            return evaluator(self.config.global_batch_size, lambda: self.interruption.requested)

    def save(self) -> None:
        """Saves in the background; also as the best checkpoint after the best evaluation.

        Raises:
            DivergenceError: if a step or a variable is not finite.
            SaveError: if an earlier save failed.
        """
        self._save(self._statistics.gather())
        self.restart_clocks()

    def _save(self, statistics: np.ndarray) -> None:
        self.means()
        self.refuse_divergence()
        batch_size, count = self.config.global_batch_size, self.data.info.train_count
        epoch, text = self.epoch(self.done), self.writer.metrics_csv()
        run_state = RunState(
            step=self.done,
            epoch=epoch,
            step_in_epoch=self.done - epoch * count // batch_size,
            seed=self.config.seed,
            reshuffles=self.reshuffles,
            **self.monitor.saved(),
            evaluated=self.evaluated,
            csv_bytes=len(text),
            step_metrics=self.step_metrics.rows_since_evaluation(),
            replica_statistics=statistics,
        )
        if self.devices.writes:
            self.checkpoints.save(
                run_state,
                self._is_best,
                # The row comes first: a run killed in between repeats these steps and the row.
                before=lambda: self.writer.write_metrics(text),
                after=self.folder.forget_aside if self.monitor.saved() else lambda: None,
            )
        self.has_unsaved_evaluation = self._is_best = False

    def restart_clocks(self) -> None:
        """Excludes the time since the last log from throughput, and from the length of a step."""
        self.writer.restart_clock()
        self.interruption.restart_clock()

    def refuse_divergence(self) -> None:
        """Raises DivergenceError if a step or a variable is not finite."""
        if self.step_metrics.bad:
            self._diverged(self.step_metrics.bad)
        # The loss of a step says nothing of the variables after its update.
        rows = self.state.rows
        if not are_finite([rows.weights, *rows.moments, rows.statistics]):
            self._diverged(f"A variable was no longer finite after step {self.done:,}")

    def roll_back(self, error: DivergenceError) -> None:
        """Restores the newest checkpoint and draws a new data order from there.

        Raises:
            DivergenceError: the error, with advice, if the configuration or the number of
                rollbacks so far allows none.
        """
        rolls_back = self.config.on_nan == "rollback"
        if rolls_back:
            # The chief may still be writing the newest checkpoint.
            wait_for_all(self.devices.strategy)
        if not rolls_back or self.checkpoints.newest is None:
            raise DivergenceError(f"{error} Training has stopped. {_ADVICE}") from error
        earlier, most = self.reshuffles, self.config.max_rollbacks
        if len(earlier) >= most:
            raise DivergenceError(
                f"{error} Training has stopped: it has been rolled back {len(earlier)} times, as "
                f"often as max_rollbacks allows. {_ADVICE}"
            ) from error
        self.restore()
        self.reshuffles = (*(min(step, self.done) for step in earlier), self.done)
        self.writer.line(
            f"{error} Rolled back to step {self.done:,}, to go on with another data order: "
            f"{len(self.reshuffles)} of at most {most} times."
        )
        self.writer.begin(self.done, self._csv_bytes, self.train_steps)

    def _naming_unreadable(self, steps: int) -> contextlib.AbstractContextManager:
        """Names the unreadable images where one of the next steps fails to read."""

        def indices():
            options = {"seed": self.config.seed, "reshuffles": self.reshuffles}
            batch_size = self.config.global_batch_size
            for step in range(self.done, self.done + steps):
                yield from self.data.train_indices(step, batch_size, **options)

        return naming_unreadable(self.data, "train", indices)

    def _diverged(self, what: str) -> typing.NoReturn:
        self.checkpoints.wait()
        kept = self.checkpoints.newest
        raise DivergenceError(
            f"{what}. "
            + (f"Last good checkpoint: {kept}." if kept else "No checkpoint had been saved yet.")
        )
