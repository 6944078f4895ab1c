"""Saving and restoring a run. Variables are stored under their paths, as in `conv1/kernel`."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.support import files
from keras_preact.training.checkpoints.background import Saving
from keras_preact.training.checkpoints.folder import (
    PREFIX,
    check_fits,
    keep,
    listed,
    name_as_latest,
    newest_undamaged,
)
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.train_state import TrainState, by_path


class Checkpoints:
    """The checkpoints of a run: the newest few and the best, in one folder.

    Each is a folder, as in `step-400`, with the files of a `tf.train.Checkpoint` and a
    manifest by which damage is found; see `files.sealed`.

    Args:
        folder: where they lie; the best in its subfolder `best`.
        state: of the run.
        keep: how many of the newest to keep.
        tell: takes a line for the user.
        run: id of the run, with which checkpoints are stamped; restoring refuses others, and
            only the run's own are ever deleted. None neither stamps nor refuses.
        check_own: called before each save; raises SaveError where the folder is no longer
            the run's.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        state: TrainState,
        keep: int,
        tell: Callable[[str], None] = print,
        run: str | None = None,
        check_own: Callable[[], None] = lambda: None,
    ):
        self._folder, self._state, self._keep = epath.Path(folder), state, keep
        self._tell, self._run, self._check_own = tell, run, check_own
        self._saving = Saving(tell)
        self._copies = None

    @property
    def newest(self) -> str | None:
        """Path of the newest checkpoint that has been written."""
        return next(iter(listed(self._folder)), None)

    def save(
        self,
        run_state: RunState,
        best: bool = False,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state as it is now and saves the copy while the caller goes on.

        Args:
            run_state: where the run stands.
            best: whether to save as the best, too.
            before: what else is saved, to be done first.
            after: to be done once all has been saved.

        Raises:
            SaveError: if the save before this one failed.
        """
        # Else two copies would be in memory.
        self._saving.wait()
        values = self._values(run_state)

        def job():
            self._check_own()
            path = self._folder / f"step-{run_state.step}"
            # Its unfinished folder is there from the first file on: it tells a run that was
            # killed in its first save from one that has lost its checkpoints.
            with files.sealed(path, self._run) as folder:
                before()
                self._copy(values)
                if best:
                    self._write_best(path.name)
                everything = tf.train.Checkpoint(**self._copies, position=run_state.to_variables())
                everything.write(str(folder / PREFIX))
            keep(self._folder, listed(self._folder)[: self._keep], self._run)
            name_as_latest(path)
            after()

        self._saving.start(f"step {run_state.step:,}", job)

    def wait(self) -> None:
        """Returns once nothing is being saved; raises SaveError if that failed."""
        self._saving.wait()

    def check(self) -> None:
        """Raises SaveError if saving has failed; does not wait."""
        self._saving.check()

    def restore(self, tidy: bool = True) -> RunState | None:
        """Restores the newest checkpoint that is not damaged; None where there is none.

        Args:
            tidy: whether to move damaged ones to the subfolder `damaged`.

        Raises:
            ValueError: if all are damaged, or the newest is another run's or holds other
                variables than this one's.
        """
        self.wait()
        path = newest_undamaged(self._folder, self._tell, tidy, self._run)
        if path is None:
            return None
        run_state = RunState().to_variables()
        saved = self._state.to_save()
        check_fits(path, saved)
        checkpoint = tf.train.Checkpoint(**saved, position=run_state)
        checkpoint.read(f"{path}/{PREFIX}").assert_consumed()
        return RunState.from_variables(run_state)

    def _values(self, run_state):
        """The state in the host's memory, with the mean of all replicas' statistics of BN."""
        values = {
            # TensorFlow copies a variable on its next change, where something still reads it.
            group: {name: _first_copy(variable).numpy() for name, variable in variables.items()}
            for group, variables in self._state.to_save().items()
        }
        rows = run_state.replica_statistics
        if len(rows):
            means, begin = rows.mean(axis=0), 0
            for group, name in self._state.statistics():
                shape = values[group][name].shape
                end = begin + int(np.prod(shape))
                values[group][name] = means[begin:end].reshape(shape)
                begin = end
        return values

    def _copy(self, values):
        if self._copies is None:
            with tf.device("CPU"):
                self._copies = tf.nest.map_structure(tf.Variable, values)
        else:
            tf.nest.map_structure(lambda copy, value: copy.assign(value), self._copies, values)

    def _write_best(self, name):
        path = self._folder / "best" / name
        weights = {group: self._copies[group] for group in self._state.weights_to_save()}
        with files.sealed(path, self._run) as folder:
            tf.train.Checkpoint(**weights).write(str(folder / PREFIX))
        # Not the newest, which may be of steps that have been taken again since.
        keep(path.parent, [str(path)], self._run)
        name_as_latest(path)


def find(
    folder: epath.PathLike,
    which: str,
    tell: Callable[[str], None] = print,
    run: str | None = None,
) -> str:
    """Path of the "newest" or the "best" checkpoint of a run's folder of checkpoints.

    A damaged one is told of and left out.

    Args:
        folder: of the checkpoints.
        which: "newest" or "best".
        tell: takes a line for the user.
        run: id of the run that it must be of; None for any.

    Raises:
        ValueError: if there is none, or it is another run's.
    """
    folder = epath.Path(folder)
    part = folder / "best" if which == "best" else folder
    path = newest_undamaged(part, tell, tidy=False, run=run)
    if path is None:
        raise ValueError(f"There is no {which} checkpoint in {folder}.")
    return path


def load_model(path: str, model: keras.Model, averages: bool = False) -> None:
    """Restores the variables of a model, of any precision, from a checkpoint.

    Args:
        path: of the checkpoint.
        model: a built model.
        averages: whether the run averaged its weights: the averages are then what it
            evaluates, and what is restored.

    Raises:
        ValueError: if it holds other variables than the model's.
    """
    variables = by_path(model.variables)
    floats = {path: v for path, v in variables.items() if v.dtype.is_floating}
    groups = {"model": variables, "averages": floats} if averages else {"model": variables}
    check_fits(path, groups)
    # One after the other: the averages replace the weights.
    for name, group in groups.items():
        checkpoint = tf.train.Checkpoint(**{name: group}).read(f"{path}/{PREFIX}")
        checkpoint.expect_partial().assert_existing_objects_matched()


def _first_copy(variable):
    """The copy of a variable on the first replica, which is all there is for one replica."""
    return getattr(variable, "values", [variable])[0]
