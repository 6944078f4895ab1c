"""The training loop."""

import dataclasses
import math
import time

import keras
import tensorflow as tf

from keras_preact.data import Dataset
from keras_preact.training import curves, metrics
from keras_preact.training.checkpoint import Checkpoints
from keras_preact.training.config import TrainConfig
from keras_preact.training.evaluation import Evaluation, evaluate
from keras_preact.training.interruption import Interrupted, Interruption
from keras_preact.training.optimizer import SGD, StepSchedule
from keras_preact.training.progress import Progress
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.step import make_eval_step, make_train_step


class DivergenceError(RuntimeError):
    """The loss, or a variable, is no longer finite."""


class Trainer:
    """Takes the steps of a run, from its newest checkpoint or from the first.

    Args:
        config: of the run.
        data: to train and evaluate on.
        model: a built model, in the scope of the strategy.
        optimizer: a built optimizer, likewise.
        schedule: the optimizer's schedule.
        folder: where everything is written.
        strategy: over which replicas a batch is spread.
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Dataset,
        model: keras.Model,
        optimizer: SGD,
        schedule: StepSchedule,
        folder: RunFolder,
        strategy: tf.distribute.Strategy,
    ):
        self.config, self.data, self.schedule = config, data, schedule
        self.model, self.folder, self.strategy = model, folder, strategy
        self.train_step = make_train_step(
            model, optimizer, data.info, config.global_batch_size, strategy
        )
        self.eval_step = make_eval_step(model, data.info, strategy)
        self.checkpoints = Checkpoints(
            folder.checkpoints, model, optimizer, config.keep_checkpoints
        )

    def restore(self) -> int:
        """Restores the newest checkpoint; writes nothing.

        Returns:
            The number of steps taken so far.

        Raises:
            ValueError: if the checkpoint or metrics.csv is damaged.
        """
        metrics.read(self.folder.metrics)
        return self.checkpoints.restore() or 0

    def fit(self, start: int) -> Evaluation:
        """Trains to the end of the schedule.

        Args:
            start: the number of steps taken so far, from `restore`.

        Returns:
            The evaluation after the last step.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite; checkpoints stay as they were.
            Interrupted: after SIGINT or SIGTERM, once a checkpoint has been saved.
        """
        if start:
            print(f"Continuing from {self.checkpoints.newest}")
        if start >= self.schedule.train_steps:
            print(f"The run is complete: it has taken all {start:,} steps.")
            return self._evaluate()
        self.log = metrics.MetricsLog(self.folder.metrics, self.folder.tensorboard, start)
        self.progress = Progress(start, self.schedule.train_steps, self.config.global_batch_size)
        self.started = time.perf_counter()
        try:
            with Interruption() as interruption:
                return self._take_steps(start, interruption)
        finally:
            self.progress.close()
            self.log.close()

    def _take_steps(self, start, interruption):
        batches = self.data.train(
            self.config.global_batch_size,
            seed=self.config.seed,
            start_step=start,
            augmentation=self.config.augmentation,
        )
        iterator = iter(self.strategy.experimental_distribute_dataset(batches))
        self.pending, self.since_eval = [], _Sums()
        for done in range(start + 1, self.schedule.train_steps + 1):
            self.pending.append(self.train_step(*next(iterator)))
            self.progress.advance()
            if done == start + 1:
                # The first step compiles; its time says nothing of the others.
                float(self.pending[0][0])
                self.progress.restart_clock()
            evaluates = self._completes_epochs(done) or done == self.schedule.train_steps
            if evaluates or done % self.config.log_steps == 0:
                self._log(done, show=not evaluates)
            if evaluates:
                evaluation = self._evaluate_and_save(done)
            elif self.config.checkpoint_steps and done % self.config.checkpoint_steps == 0:
                self._save(done)
            if interruption.signal_number is not None and done < self.schedule.train_steps:
                if not evaluates:
                    self._save(done)
                self.progress.line(
                    f"Stopped after step {done:,}, saved as {self.checkpoints.newest}"
                )
                raise Interrupted(interruption.signal_number)
        return evaluation

    def _completes_epochs(self, done):
        """Whether this step completes the epochs between two evaluations."""
        images = self.data.info.train_count * self.config.eval_epochs
        batch_size = self.config.global_batch_size
        return done * batch_size // images > (done - 1) * batch_size // images

    def _collect(self, done):
        """Fetches the figures of the steps since the last call; refuses what is not finite."""
        sums = _Sums()
        for step, (loss, correct) in enumerate(self.pending, done - len(self.pending) + 1):
            if not math.isfinite(loss):
                self._diverged(f"The loss was {float(loss)} at step {step:,}")
            sums += _Sums(float(loss), float(correct) / self.config.global_batch_size, 1)
        self.pending = []
        self.since_eval += sums
        return sums

    def _log(self, done, show):
        if not self.pending:
            return
        loss, accuracy = self._collect(done).means()
        rate = self._rate(done)
        speed = self.progress.interval(done, loss, accuracy, rate, show)
        self.log.train(
            done, loss=loss, accuracy=accuracy, learning_rate=rate, images_per_second=speed
        )

    def _rate(self, done):
        return float(self.schedule(done - 1))

    def _evaluate(self):
        batches = self.strategy.experimental_distribute_dataset(
            self.data.eval(self.config.global_batch_size)
        )
        return evaluate(self.eval_step, batches, self.data.info.eval_count)

    def _evaluate_and_save(self, done):
        evaluation = self._evaluate()
        if not math.isfinite(evaluation.loss):
            self._diverged(f"The evaluation loss was {evaluation.loss} after step {done:,}")
        loss, accuracy = self.since_eval.means()
        epoch = done * self.config.global_batch_size / self.data.info.train_count
        row = metrics.Row(
            step=done,
            epoch=epoch,
            train_loss=loss,
            train_accuracy=accuracy,
            eval_loss=evaluation.loss,
            eval_accuracy=evaluation.accuracy,
            learning_rate=self._rate(done),
            images_per_second=self.progress.mean_rate(),
            elapsed_seconds=time.perf_counter() - self.started,
        )
        # In this order: killed in between, the run would take these steps again and
        # write the row anew.
        self.log.add(row)
        self._save(done, evaluation.accuracy)
        self._plot()
        self.progress.line(
            f"epoch {epoch:.2f}, step {done:,}: training accuracy {accuracy:.2%}, "
            f"loss {loss:.4f}; evaluation {evaluation}"
        )
        self.since_eval = _Sums()
        self.progress.restart_clock()
        return evaluation

    def _save(self, done, accuracy=None):
        if self.pending:
            self._collect(done)
        # The loss of a step tells of the variables before it.
        if not all(bool(tf.reduce_all(tf.math.is_finite(v.value))) for v in self._floats()):
            self._diverged(f"A variable was no longer finite after step {done:,}")
        self.checkpoints.save(done, accuracy)
        self.folder.forget_aside()
        self.progress.restart_clock()

    def _floats(self):
        return [v for v in self.model.variables if v.dtype.startswith("float")]

    def _plot(self):
        title = f"{self.model.name}, {self.config.unit}, on {self.data.info.name}"
        curves.plot(self.log.rows, title, self.folder.curves, self.schedule.drop_steps)

    def _diverged(self, what):
        kept = self.checkpoints.newest
        raise DivergenceError(
            f"{what}. Training has stopped. A lower learning rate or a longer warm-up may help. "
            + (f"Last good checkpoint: {kept}" if kept else "No checkpoint had been saved yet.")
        )


@dataclasses.dataclass(frozen=True)
class _Sums:
    """Sums over steps of the loss and the accuracy of a batch."""

    loss: float = 0.0
    accuracy: float = 0.0
    steps: int = 0

    def __add__(self, other):
        return _Sums(
            self.loss + other.loss, self.accuracy + other.accuracy, self.steps + other.steps
        )

    def means(self):
        return self.loss / self.steps, self.accuracy / self.steps
