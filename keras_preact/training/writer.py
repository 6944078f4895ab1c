"""What a run shows and leaves: lines, metrics, pictures, checkpoints. One process writes."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from keras_preact.data import Dataset
from keras_preact.training import curves, metrics, pictures
from keras_preact.training.checkpoint import Checkpoints
from keras_preact.training.config import TrainConfig
from keras_preact.training.evaluation import Evaluation
from keras_preact.training.progress import Progress
from keras_preact.training.reports import Means
from keras_preact.training.run_folder import RunFolder


class Writer:
    """Writes the files of a run, or nothing at all.

    Args:
        folder: of the run.
        checkpoints: of the run.
        config: of the run.
        data: that it trains on.
        title: above its pictures.
        writes: False in every process but one.
    """

    def __init__(
        self,
        folder: RunFolder,
        checkpoints: Checkpoints,
        config: TrainConfig,
        data: Dataset,
        title: str,
        writes: bool = True,
    ):
        self.folder, self.config, self.title, self.writes = folder, config, title, writes
        self._checkpoints, self._info = checkpoints, data.info
        self._log = self._progress = None

    @property
    def newest(self) -> str | None:
        """Path of the newest checkpoint, None before the first."""
        return self._checkpoints.newest

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if not self.writes:
            return
        if self._progress is None:
            print(text, flush=True)
        else:
            self._progress.line(text)

    @contextlib.contextmanager
    def writing(self, start: int, train_steps: int) -> Iterator[None]:
        """The time of training, from the step `start` on."""
        self._started = time.perf_counter()
        batch_size = self.config.global_batch_size
        self._progress = Progress(start, train_steps, batch_size, quiet=not self.writes)
        if self.writes:
            self._log = metrics.MetricsLog(self.folder.metrics, self.folder.tensorboard, start)
            if start:
                self.line(f"Continuing from {self.newest}")
        try:
            yield
        finally:
            self._progress.close()
            if self._log is not None:
                self._log.close()

    def advance(self, steps: int) -> None:
        """Further steps have been taken."""
        self._progress.advance(steps)

    def restart_clock(self) -> None:
        """What has been done since the last log was not training, or not typical of it."""
        self._progress.restart_clock()

    def example(self, data: Dataset, start: int) -> None:
        """One augmented batch, as the first step sees it, to TensorBoard."""
        if not self.writes:
            return
        options = {"seed": self.config.seed, "augmentation": self.config.augmentation}
        batches = data.train(pictures.MOST_IMAGES, **options)
        images, labels = next(iter(batches))
        png = pictures.batch(images.numpy(), labels.numpy(), self._info.class_names)
        self._log.picture("train", start, "augmented_images", png)

    def log(
        self,
        done: int,
        means: Means | None,
        learning_rate: float,
        weight_norm: float,
        show: bool,
    ) -> None:
        """The means of the steps since the last log, to the terminal and TensorBoard."""
        if means is None:
            return
        speed, waiting = self._progress.interval(done, means, learning_rate, show)
        if not self.writes:
            return
        self._log.train(
            done,
            loss=means.loss,
            accuracy=means.accuracy,
            learning_rate=learning_rate,
            images_per_second=speed,
            input_wait_share=waiting,
            gradient_norm=means.gradient_norm,
            weight_norm=weight_norm,
            loss_scale=means.loss_scale,
        )

    def evaluation(
        self, done: int, evaluation: Evaluation, means: Means, learning_rate: float
    ) -> None:
        """An evaluation, and the training since the one before, as a row of metrics.csv."""
        speed = self._progress.mean_rate()
        if not self.writes:
            return
        epoch = done * self.config.global_batch_size / self._info.train_count
        row = metrics.Row(
            step=done,
            epoch=epoch,
            train_loss=means.loss,
            train_accuracy=means.accuracy,
            eval_loss=evaluation.loss,
            eval_accuracy=evaluation.accuracy,
            learning_rate=learning_rate,
            images_per_second=speed,
            elapsed_seconds=time.perf_counter() - self._started,
        )
        self._log.add(row)
        self.line(
            f"epoch {epoch:.2f}, step {done:,}: training accuracy {means.accuracy:.2%}, "
            f"loss {means.loss:.4f}; evaluation {evaluation}"
        )

    def save(self, done: int, accuracy: float | None) -> None:
        """A checkpoint."""
        if self.writes:
            self._checkpoints.save(done, accuracy)
            self.folder.forget_aside()

    def curves(self, drop_steps: Sequence[int]) -> None:
        """curves.png."""
        if self.writes:
            curves.plot(self._log.rows, self.title, self.folder.curves, drop_steps)

    def confusion(self, done: int, evaluation: Evaluation) -> None:
        """Confusion matrix and accuracy of each class, to TensorBoard."""
        if not self.writes:
            return
        names = self._info.class_names
        png = pictures.confusion(evaluation.confusion, names, f"evaluation after step {done:,}")
        self._log.picture("eval", done, "confusion", png)
        counts = np.sum(evaluation.confusion, axis=1)
        lines = [
            f"| {name} | {accuracy:.2%} | {count:,} |"
            for name, accuracy, count in zip(
                names, evaluation.class_accuracies, counts, strict=True
            )
        ]
        table = ["| class | accuracy | images |", "|---|---|---|", *lines]
        self._log.text("eval", done, "class_accuracy", "\n".join(table))
