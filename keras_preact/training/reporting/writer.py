"""Prints the lines of a run, and writes its metrics and pictures, in one of its processes."""

import math
import time
from collections.abc import Sequence

import numpy as np

from keras_preact.data import Dataset, DatasetInfo
from keras_preact.support.console import say
from keras_preact.support.plotting import positive
from keras_preact.support.text import markdown
from keras_preact.training.checkpoints.background import reason
from keras_preact.training.config import TrainConfig
from keras_preact.training.reporting import (
    figures,
    metrics_file,
    propagation_figure,
    propagation_file,
)
from keras_preact.training.reporting.progress import Progress
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.evaluation import Evaluation
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
        self._log = self._propagation = self._progress = None
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
            self._progress = Progress(step, train_steps, self._config.global_batch_size, quiet)
            self._started = time.perf_counter()
        else:
            self._progress.set_back(step)
        if not self._writes:
            return
        folder = self._folder
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
        """Closes the files and the progress bar."""
        if self._progress is not None:
            self._progress.close()
        if self._log is not None:
            self._log.close()

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
        self._log.train(
            done,
            loss=means.loss,
            accuracy=means.accuracy,
            learning_rate=learning_rate,
            images_per_second=speed,
            gradient_norm=means.gradient_norm,
            weight_norm=weight_norm,
            loss_scale=means.loss_scale,
            **({} if math.isnan(waiting) else {"input_wait_share": waiting}),
        )

    def evaluation(
        self, done: int, evaluation: Evaluation, means: Means, learning_rate: float
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
            eval_loss=evaluation.loss,
            eval_accuracy=evaluation.accuracy,
            learning_rate=learning_rate,
            images_per_second=speed,
            elapsed_seconds=self._earlier_seconds + time.perf_counter() - self._started,
        )
        self._log.add(row)
        self.line(
            f"epoch {epoch:.2f}, step {done:,}: training accuracy {means.accuracy:.2%}, "
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

    def confusion(self, done: int, evaluation: Evaluation) -> None:
        """Writes the confusion matrix and each class's accuracy for TensorBoard."""
        if not self._writes:
            return
        names = self._info.class_names
        png = figures.confusion(evaluation.confusion, names, f"evaluation after step {done:,}")
        self._log.picture("eval", done, "confusion", png)
        counts = np.sum(evaluation.confusion, axis=1)
        lines = [
            f"| {markdown(name)} | {accuracy:.2%} | {count:,} |"
            for name, accuracy, count in zip(
                names, evaluation.class_accuracies, counts, strict=True
            )
        ]
        table = ["| class | accuracy | images |", "|---|---|---|", *lines]
        self._log.text("eval", done, "class_accuracy", "\n".join(table))
