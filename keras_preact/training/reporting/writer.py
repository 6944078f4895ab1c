"""What a run shows and leaves: lines, metrics, pictures, checkpoints. One process writes."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from keras_preact.data import Dataset
from keras_preact.support.console import say
from keras_preact.support.plotting import positive
from keras_preact.support.text import markdown
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.config import TrainConfig
from keras_preact.training.reporting import curves, metrics_file, pictures, propagation_file
from keras_preact.training.reporting import propagation_figure as propagation_pictures
from keras_preact.training.reporting.progress import Progress
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.evaluation import Evaluation
from keras_preact.training.steps.step_metrics import Means


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
        self._log = self._propagation = self._progress = None

    def line(self, text: str) -> None:
        """Prints a line that stays."""
        if self.writes:
            say(text)

    @contextlib.contextmanager
    def writing(self, run_state: RunState, train_steps: int) -> Iterator[None]:
        """The time of training, from a run_state on."""
        self._started = time.perf_counter()
        batch_size = self.config.global_batch_size
        self._progress = Progress(run_state.step, train_steps, batch_size, quiet=not self.writes)
        self._open_log(run_state)
        try:
            yield
        finally:
            self._progress.close()
            if self._log is not None:
                self._log.close()

    def set_back(self, run_state: RunState) -> None:
        """The run goes on from an earlier run_state."""
        self._progress.set_back(run_state.step)
        if self._log is not None:
            self._log.close()
        self._open_log(run_state)

    def _open_log(self, run_state):
        if not self.writes:
            return
        start = run_state.step
        self._log = metrics_file.MetricsLog(self.folder.metrics, self.folder.tensorboard, start)
        if start and len(self._log.csv()) != run_state.csv_bytes:
            self.line(
                f"{self.folder.metrics} is not as this run left it after step {start:,}: its rows "
                "up to that step are kept as they are."
            )
        path = self.folder.propagation
        self._propagation = propagation_file.PropagationWriter(path)
        self._try(path, self._propagation.drop_after, start)

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
            gradient_norm=means.gradient_norm,
            weight_norm=weight_norm,
            loss_scale=means.loss_scale,
            **({} if math.isnan(waiting) else {"input_wait_share": waiting}),
        )

    def evaluation(
        self, done: int, evaluation: Evaluation, means: Means, learning_rate: float
    ) -> None:
        """An evaluation, and the training since the one before: a row, written by `save`."""
        speed = self._progress.mean_rate()
        if not self.writes:
            return
        epoch = done * self.config.global_batch_size / self._info.train_count
        row = metrics_file.Row(
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

    def save(self, run_state: RunState, best: bool) -> None:
        """Copies the state, and saves it with the rows of metrics_file.csv in the background.

        Raises:
            SaveError: if an earlier save failed.
        """
        if not self.writes:
            return
        log, text = self._log, self._log.csv()
        self._checkpoints.save(
            dataclasses.replace(run_state, csv_bytes=len(text)),
            best,
            # In this order: killed in between, the run would take these steps again and
            # write the row anew.
            before=lambda: log.write_csv(text),
            after=self.folder.forget_aside if run_state.best_accuracy >= 0 else lambda: None,
        )

    def curves(self, drop_steps: Sequence[int]) -> None:
        """curves.png; a picture that cannot be written does not end a run."""
        if not self.writes:
            return
        path = self.folder.curves
        self._try(path, curves.plot, self._log.rows, self.title, path, drop_steps)

    def has_propagation(self, done: int) -> bool:
        """Whether signal and gradient after so many steps have been recorded."""
        return self._propagation.has(done)

    def propagation(self, record: propagation_file.Record) -> None:
        """Signal and gradient in each unit, to propagation.csv and TensorBoard.

        What cannot be written does not end a run.
        """
        self._try(self.folder.propagation, self._propagation.add, record)
        for name in ("gradient_norm", "shortcut_norm", "residual_norm"):
            norms = positive(getattr(record.backward, name))
            logarithms = np.log10(norms[~np.isnan(norms)])
            if logarithms.size:
                self._log.histogram("train", record.step, f"propagation/{name}", logarithms)
        title = f"{self.title}, after step {record.step:,}"
        png = propagation_pictures.gradient(record.backward, title)
        self._log.picture("train", record.step, "propagation/gradient", png)

    def _try(self, path, write, *arguments):
        self.folder.check_ours()
        try:
            write(*arguments)
        except OSError as error:
            self.line(f"Could not write {path}: {error.strerror}")

    def confusion(self, done: int, evaluation: Evaluation) -> None:
        """Confusion matrix and accuracy of each class, to TensorBoard."""
        if not self.writes:
            return
        names = self._info.class_names
        png = pictures.confusion(evaluation.confusion, names, f"evaluation after step {done:,}")
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
