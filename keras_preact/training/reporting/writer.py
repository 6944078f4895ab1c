"""Prints the lines of a run, and writes its metrics and pictures, in one of its processes."""

import math
import time
from collections.abc import Mapping, Sequence

import numpy as np

from keras_preact.data import Dataset, DatasetInfo
from keras_preact.support.console import say
from keras_preact.support.plotting import positive
from keras_preact.training.checkpoints.background import reason
from keras_preact.training.config import TrainConfig
from keras_preact.training.monitor import Monitor
from keras_preact.training.reporting import (
    class_figures,
    figures,
    metrics_file,
    propagation_figure,
    propagation_file,
    trackers,
)
from keras_preact.training.reporting.progress import Progress
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation
from keras_preact.training.steps.step_metrics import Means


class Writer:
    """Prints the lines of a run and writes its metrics and pictures; call `begin` first.

    Args:
        folder: of the run.
        config: configuration of the run.
        info: description of its data.
        title: above the pictures.
        writes: whether this process prints and writes.
    """

    def __init__(
        self, folder: RunFolder, config: TrainConfig, info: DatasetInfo, title: str, writes: bool
    ):
        self._folder, self._config, self._info = folder, config, info
        self._title, self._writes = title, writes
        self._log = self._propagation = self._progress = self._tracker = None
        self._is_complete = False
        # With several labels, all of an image's must be right.
        self._accuracy = "all labels right" if info.multi_label else "accuracy"
        self._started = self._earlier_seconds = 0.0

    def line(self, text: str) -> None:
        """Prints a line; a progress bar stays below it."""
        if self._writes:
            say(text)

    def begin(self, step: int, csv_bytes: int, train_steps: int) -> None:
        """Opens the files at the start, and again after a rollback.

        Args:
            step: number of steps taken; rows, events and records beyond it are dropped.
            csv_bytes: length of metrics.csv at that step.
            train_steps: number of the last step.
        """
        first = self._progress is None
        if first:
            quiet = not self._writes
            batch_size = self._config.global_batch_size
            self._progress = Progress(step, train_steps, batch_size, quiet, self._accuracy)
            self._started = time.perf_counter()
        else:
            self._progress.set_back(step)
        if not self._writes:
            return
        folder = self._folder
        if first:
            self._tracker = trackers.begin(
                self._config.log_to,
                folder.tracker,
                folder.run_id,
                folder.path.name,
                self._config.to_json(),
            )
        if self._log is not None:
            self._log.close()
        self._log = metrics_file.MetricsLog(folder.metrics, folder.tensorboard, step)
        if first and self._log.rows:
            self._earlier_seconds = self._log.rows[-1].elapsed_seconds
        if step and len(self._log.csv()) != csv_bytes:
            self.line(
                f"{folder.metrics} is not as this run left it after step {step:,}: its rows up to "
                "that step are kept as they are."
            )
        self._propagation = propagation_file.PropagationWriter(folder.propagation)
        self._try(folder.propagation, self._propagation.drop_after, step)

    def close(self) -> None:
        """Closes the files, the tracker and the progress bar."""
        if self._progress is not None:
            self._progress.close()
        if self._log is not None:
            self._log.close()
        if self._tracker is not None:
            self._tracker.close(self._is_complete)

    def advance(self, steps: int) -> None:
        """Counts further steps."""
        self._progress.advance(steps)

    def restart_clock(self) -> None:
        """Excludes the time since the last log from throughput."""
        self._progress.restart_clock()

    def example(self, data: Dataset, start: int) -> None:
        """Writes augmented images, as the first step sees them, for TensorBoard."""
        if not self._writes:
            return
        options = {"seed": self._config.seed, "augmentation": self._config.augmentation}
        batches = data.train(figures.MOST_IMAGES, **options)
        images, labels, *_ = next(iter(batches))
        png = figures.batch(images.numpy(), labels.numpy(), self._info.class_names)
        self._log.picture("train", start, "augmented_images", png)

    def log(
        self,
        done: int,
        means: Means | None,
        learning_rate: float,
        weight_norm: float,
        show: bool,
    ) -> None:
        """Prints the means over the steps since the last log, and writes them for TensorBoard."""
        if means is None:
            return
        speed, waiting = self._progress.interval(done, means, learning_rate, show)
        if not self._writes:
            return
        scalars = {
            "loss": means.loss,
            "accuracy": means.accuracy,
            "learning_rate": learning_rate,
            "images_per_second": speed,
            "gradient_norm": means.gradient_norm,
            "weight_norm": weight_norm,
            "loss_scale": means.loss_scale,
            **({} if math.isnan(waiting) else {"input_wait_share": waiting}),
        }
        self._log.train(done, **scalars)
        self._tracker.log(done, trackers.numbers("train", scalars))

    def evaluation(
        self,
        done: int,
        evaluation: Evaluation | MultiLabelEvaluation,
        means: Means,
        learning_rate: float,
    ) -> None:
        """Prints an evaluation and adds its row; `write_metrics` writes it."""
        speed = self._progress.mean_rate()
        if not self._writes:
            return
        epoch = done * self._config.global_batch_size / self._info.train_count
        row = metrics_file.Row(
            step=done,
            epoch=epoch,
            train_loss=means.loss,
            train_accuracy=means.accuracy,
            learning_rate=learning_rate,
            images_per_second=speed,
            elapsed_seconds=self._earlier_seconds + time.perf_counter() - self._started,
            **{f"eval_{name}": value for name, value in evaluation.scores.items()},
        )
        self._log.add(row)
        self._tracker.log(done, trackers.numbers("eval", evaluation.scores))
        self.line(
            f"epoch {epoch:.2f}, step {done:,}: training {self._accuracy} {means.accuracy:.2%}, "
            f"loss {means.loss:.4f}; evaluation {evaluation}"
        )

    def metrics_csv(self) -> bytes:
        """Returns metrics.csv as it is to be written; empty in processes that write nothing."""
        return self._log.csv() if self._writes else b""

    def write_metrics(self, data: bytes) -> None:
        """Writes metrics.csv, with an earlier result of `metrics_csv`."""
        self._log.write_csv(data)

    def curves(self, drop_steps: Sequence[int]) -> None:
        """Writes curves.png; a failure to write does not end the run."""
        if not self._writes:
            return
        path = self._folder.curves
        self._try(path, figures.curves, self._log.rows, self._title, path, drop_steps)

    def has_propagation(self, done: int) -> bool:
        """Whether signal and gradient after `done` steps have been recorded."""
        return self._propagation.has(done)

    def propagation(self, record: propagation_file.Record) -> None:
        """Writes signal and gradient in each unit, to propagation.csv and for TensorBoard.

        A failure to write the file does not end the run.
        """
        self._try(self._folder.propagation, self._propagation.add, record)
        for name in ("gradient_norm", "shortcut_norm", "residual_norm"):
            norms = positive(getattr(record.backward, name))
            logarithms = np.log10(norms[~np.isnan(norms)])
            if logarithms.size:
                self._log.histogram("train", record.step, f"propagation/{name}", logarithms)
        title = f"{self._title}, after step {record.step:,}"
        png = propagation_figure.gradient(record.backward, title)
        self._log.picture("train", record.step, "propagation/gradient", png)

    def _try(self, path, write, *arguments):
        self._folder.check_ours()
        try:
            write(*arguments)
        except OSError as error:
            self.line(f"Could not write {path}: {reason(error)}")

    def classes(self, done: int, evaluation: Evaluation | MultiLabelEvaluation) -> None:
        """Writes the figures of each class for TensorBoard, and with one label the confusion."""
        if not self._writes:
            return
        names, title = self._info.class_names, f"evaluation after step {done:,}"
        if isinstance(evaluation, Evaluation):
            png = figures.confusion(evaluation.confusion, names, title)
            self._log.picture("eval", done, "confusion", png)
            self._log.text("eval", done, "class_accuracy", class_figures.table(evaluation, names))
        else:
            png = class_figures.bars(evaluation, names, title)
            self._log.picture("eval", done, "classes", png)
            self._log.text("eval", done, "classes", class_figures.table(evaluation, names))

    def finish(self, done: int, monitor: Monitor) -> None:
        """Hands the best evaluation to the tracker, as the run has reached its end."""
        self._is_complete = True
        if self._writes:
            sign = -1 if monitor.figure == "loss" else 1
            best = {monitor.figure: sign * monitor.best_score, "step": monitor.best_step}
            self._tracker.summary(done, trackers.numbers("best", best))

    def test(self, done: int, scores: Mapping[str, float]) -> None:
        """Writes the figures of the test split for TensorBoard, and hands them to the tracker."""
        self._is_complete = True
        if self._writes:
            self._log.test(done, scores)
            self._tracker.summary(done, trackers.numbers("test", scores))
