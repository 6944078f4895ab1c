"""The metrics of a run: metrics.csv, and TensorBoard's event files."""

import csv
import dataclasses
import io
import math
import os
import time
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from etils import epath
from tensorboard.compat.proto import event_pb2

from keras_preact.support import tables
from keras_preact.support.files import write_whole


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of metrics.csv: an evaluation, and the training since the one before.

    Args:
        step: number of steps taken.
        epoch: number of images seen, over the number of training images.
        train_loss: mean training loss of augmented images, in nats.
        train_accuracy: of the same images, 0 to 1.
        eval_loss: mean cross-entropy of the evaluation images, in nats; with several labels the
            binary cross-entropy.
        eval_accuracy: 0 to 1; with several labels the share of images with all of them right.
        learning_rate: of the last step.
        images_per_second: training images; evaluation and saving are not timed.
        elapsed_seconds: time in training, over all sessions of the run.
        eval_top5_accuracy: 0 to 1; None with several labels, up to five classes, or in files of
            earlier versions, as all that follow.
        eval_macro_f1: 0 to 1.
        eval_micro_f1: 0 to 1; None with one label.
        eval_mean_average_precision: 0 to 1; None with one label.
    """

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    eval_loss: float
    eval_accuracy: float
    learning_rate: float
    images_per_second: float
    elapsed_seconds: float
    eval_top5_accuracy: float | None = None
    eval_macro_f1: float | None = None
    eval_micro_f1: float | None = None
    eval_mean_average_precision: float | None = None

    @property
    def scores(self) -> dict[str, float]:
        """The figures of the evaluation by name, without eval_."""
        return {
            name.removeprefix("eval_"): value
            for name, value in vars(self).items()
            if name.startswith("eval_") and value is not None
        }


OPTIONAL = [field.name for field in dataclasses.fields(Row) if field.default is None]
COLUMNS = [field.name for field in dataclasses.fields(Row) if field.name not in OPTIONAL]
SPLITS, TEST = ("train", "eval"), "test"
_TABLE = tables.Table(COLUMNS, f"a line of {len(COLUMNS)} numbers for each evaluation", OPTIONAL)


def read(path: epath.PathLike) -> list[Row]:
    """Reads the rows of metrics.csv; none if there is no such file.

    Raises:
        ValueError: if the file is damaged; names the file and the line.
    """
    path = epath.Path(path)
    if not path.exists():
        return []
    rows = []
    for line, cells in _TABLE.rows(path):
        try:
            rows.append(Row(*map(_number, (*COLUMNS, *OPTIONAL), cells)))
        except ValueError:
            raise _TABLE.damaged(path, line, cells) from None
    return rows


def _number(column, cell):
    if column == "step":
        return tables.whole(cell)
    if column in OPTIONAL and not cell:
        return None
    if column in ("train_loss", "train_accuracy") and cell == "nan":
        return math.nan  # every step since the last evaluation overflowed in float16
    return tables.finite(cell)


def check_writable(tensorboard_dir: epath.PathLike) -> None:
    """Raises ValueError if a file, or a link to nothing, is in the place of an event folder."""
    folder = epath.Path(tensorboard_dir)
    for path in (folder, *(folder / split for split in (*SPLITS, TEST))):
        # TensorFlow makes no folder in the place of a link to nothing either.
        if os.path.lexists(path) and not path.is_dir():
            raise ValueError(
                f"{path} must be a folder, or not there, for the events of TensorBoard. Received: "
                "a file or a link to nothing. Move it away"
            )


class MetricsLog:
    """Keeps the rows of metrics.csv, and writes events for TensorBoard.

    Args:
        csv_path: of metrics.csv; rows beyond start_step are dropped.
        tensorboard_dir: folder of the events; TensorBoard no longer shows those beyond
            start_step.
        start_step: number of steps taken; later ones will be taken again.
    """

    def __init__(self, csv_path: epath.PathLike, tensorboard_dir: epath.PathLike, start_step: int):
        self._path = epath.Path(csv_path)
        self.rows = [row for row in read(csv_path) if row.step <= start_step]
        self._writers, self._tensorboard = {}, epath.Path(tensorboard_dir)
        for split in SPLITS:
            folder = self._tensorboard / split
            self._writers[split] = tf.summary.create_file_writer(str(folder))
            _begin_session(self._writers[split], start_step)

    def train(self, step: int, **scalars: float) -> None:
        """Writes metrics of training after a step."""
        self._write("train", step, scalars)

    def picture(self, split: str, step: int, name: str, png: bytes) -> None:
        """Writes a picture; split is "train" or "eval"."""
        with self._writers[split].as_default(step=step):
            tf.summary.image(name, tf.io.decode_png(png, channels=3)[None])
        self._writers[split].flush()

    def text(self, split: str, step: int, name: str, markdown: str) -> None:
        """Writes a text in Markdown."""
        with self._writers[split].as_default(step=step):
            tf.summary.text(name, markdown)

    def histogram(self, split: str, step: int, name: str, values: np.ndarray) -> None:
        """Writes a histogram of values."""
        with self._writers[split].as_default(step=step):
            tf.summary.histogram(name, values)

    def add(self, row: Row) -> None:
        """Adds a row, and writes its evaluation for TensorBoard."""
        self.rows.append(row)
        self._write("eval", row.step, row.scores)

    def csv(self) -> bytes:
        """Returns the rows as CSV, without columns that no row has."""
        text = io.StringIO()
        used = [name for name in OPTIONAL if any(vars(row)[name] is not None for row in self.rows)]
        names = [*COLUMNS, *used]
        writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        for each in self.rows:
            writer.writerow({name: _cell(name, value) for name, value in vars(each).items()})
        return text.getvalue().encode()

    def write_csv(self, data: bytes) -> None:
        """Writes metrics.csv, with an earlier result of `csv`."""
        write_whole(self._path, data)

    def test(self, step: int, scores: Mapping[str, float]) -> None:
        """Writes the figures of the test split for TensorBoard; `csv` has none of them."""
        if TEST not in self._writers:
            folder = self._tensorboard / TEST
            self._writers[TEST] = tf.summary.create_file_writer(str(folder))
            _begin_session(self._writers[TEST], 0)
        self._write(TEST, step, scores)

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write(self, split, step, scalars):
        with self._writers[split].as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
        self._writers[split].flush()


def _cell(name, value):
    if value is None:
        return ""
    return value if name == "step" else f"{value:.6g}"


def _begin_session(writer, step):
    """Makes TensorBoard drop events beyond a step that earlier sessions wrote."""
    start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    event = event_pb2.Event(wall_time=time.time(), step=step + 1, session_log=start)
    # No public function writes this event. It must come first in the writer's own file, as
    # TensorBoard orders files by names, which may be of the same second.
    tf.raw_ops.ImportEvent(writer=writer._resource, event=event.SerializeToString())
