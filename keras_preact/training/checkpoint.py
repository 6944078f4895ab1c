"""Saving and restoring a run. Variables are stored under their paths, as in `conv1/kernel`."""

import contextlib

import keras
import tensorflow as tf
from etils import epath

from keras_preact.training.state import TrainState, by_path


class Checkpoints:
    """The checkpoints of a run: the newest few and the best, in one folder.

    Args:
        folder: where they lie; the best in its subfolder `best`.
        state: of the run.
        keep: how many of the newest to keep.
    """

    def __init__(self, folder: epath.PathLike, state: TrainState, keep: int):
        self.best_accuracy = tf.Variable(-1.0, dtype=tf.float64, name="best_accuracy")
        self._checkpoint = tf.train.Checkpoint(**state.to_save(), best_accuracy=self.best_accuracy)
        self._folder = folder = epath.Path(folder)
        self._newest = tf.train.CheckpointManager(
            self._checkpoint, str(folder), keep, checkpoint_name="step"
        )
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(**state.weights_to_save()),
            str(folder / "best"),
            max_to_keep=1,
            checkpoint_name="step",
        )

    @property
    def newest(self) -> str | None:
        """Path of the newest checkpoint, without the endings of its files."""
        return self._newest.latest_checkpoint

    def save(self, step: int, accuracy: float | None = None) -> str:
        """Saves after so many steps; as the best too, where accuracy is above all before.

        Returns:
            The path of the checkpoint.
        """
        if accuracy is not None and accuracy > self.best_accuracy.numpy():
            self.best_accuracy.assign(accuracy)
            self._best.save(checkpoint_number=step)
        return self._newest.save(checkpoint_number=step)

    def restore(self) -> int | None:
        """Restores the newest checkpoint; returns its step, or None where there is none.

        Raises:
            ValueError: if it is damaged, or holds other variables than this run's.
        """
        path = self.newest
        if path is None:
            lost = sorted(self._folder.glob("step-*.index"), key=lambda p: step_of(p.stem))
            if lost:
                raise ValueError(
                    f"{self._folder} holds checkpoints, the newest {lost[-1].stem}, but its file "
                    "`checkpoint`, which names them, is missing or damaged."
                )
            return None
        with _reading(path):
            self._checkpoint.restore(path).assert_consumed()
        return step_of(path)


def find(folder: epath.PathLike, which: str) -> str:
    """Path of the "newest" or the "best" checkpoint of a run's folder of checkpoints.

    Raises:
        ValueError: if there is none.
    """
    folder = epath.Path(folder)
    path = tf.train.latest_checkpoint(str(folder / "best" if which == "best" else folder))
    if path is None:
        raise ValueError(f"There is no {which} checkpoint in {folder} that could be read.")
    return path


def load_model(path: str, model: keras.Model, averages: bool = False) -> None:
    """Restores the variables of a model, of any precision, from a checkpoint.

    Args:
        path: of the checkpoint.
        model: a built model.
        averages: whether the run averaged its weights: the averages are then what it
            evaluates, and what is restored.

    Raises:
        ValueError: if it is damaged or lacks one of the model's variables.
    """
    variables = by_path(model.variables)
    floats = {path: v for path, v in variables.items() if v.dtype.is_floating}
    groups = {"model": variables, "averages": floats} if averages else {"model": variables}
    with _reading(path):
        # One after the other: the averages replace the weights.
        for name, group in groups.items():
            checkpoint = tf.train.Checkpoint(**{name: group})
            checkpoint.restore(path).expect_partial().assert_existing_objects_matched()


@contextlib.contextmanager
def _reading(path):
    # TensorFlow raises any of these for files that are cut, changed or of another net.
    try:
        yield
    except (AssertionError, IndexError, ValueError, OSError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0][:300]
        raise ValueError(f"{path} is damaged or does not fit this model: {reason}") from error


def step_of(path: str) -> int:
    """The step that a checkpoint's name ends in."""
    return int(path.rpartition("-")[2])
