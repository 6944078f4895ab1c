"""Saves and restores a run. Variables are stored under their paths, as in `conv1/kernel`."""

from collections.abc import Callable

import keras
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
    names_in,
    newest_undamaged,
)
from keras_preact.training.checkpoints.run_state import LATER, RunState
from keras_preact.training.steps.train_state import GROUPS_OF_WEIGHTS, TrainState, by_path


class Checkpoints:
    """The checkpoints of a run: the newest few and the best, in one folder.

    Each is a folder such as `step-400`, with the files of a `tf.train.Checkpoint` and a
    manifest that reveals damage; see `files.sealed`.

    Args:
        folder: of the newest checkpoints; the best is in its subfolder `best`.
        state: of the run.
        keep: number of newest checkpoints to keep.
        tell: takes a line for the user.
        run: id of the run, stamped on its checkpoints. Checkpoints of another run are neither
            restored nor deleted. None neither stamps nor refuses.
        check_own: called before each save; raises SaveError if the folder is no longer the
            run's.
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
        """Path of the newest checkpoint; None before the first is complete."""
        return next(iter(listed(self._folder)), None)

    def save(
        self,
        run_state: RunState,
        best: bool = False,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state, and saves the copy in the background.

        Args:
            run_state: progress of the run.
            best: saves as the best checkpoint, too.
            before: called first, in the background.
            after: called once all has been saved.

        Raises:
            SaveError: if the save before this one failed.
        """
        # Waiting first avoids a second copy in memory.
        self._saving.wait()
        values = self._state.to_arrays(run_state.step, run_state.replica_statistics)

        def job():
            self._check_own()
            path = self._folder / f"step-{run_state.step}"
            # The unfinished folder, made before any other file, tells a run that was killed in
            # its first save from a run that has lost its checkpoints.
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
        """Waits for the save in progress; raises SaveError if it failed."""
        self._saving.wait()

    def check(self) -> None:
        """Raises SaveError if the last save has failed; does not wait."""
        self._saving.check()

    def restore(self, tidy: bool = True) -> RunState | None:
        """Restores the newest undamaged checkpoint; returns None if there are no checkpoints.

        Args:
            tidy: moves damaged checkpoints to the subfolder `damaged`.

        Raises:
            ValueError: if all are damaged, or the newest is of another run or of another
                architecture.
        """
        self.wait()
        path = newest_undamaged(self._folder, self._tell, tidy, self._run)
        if path is None:
            return None
        position = RunState().to_variables()
        stored = names_in(path, "position")
        # A checkpoint of an earlier version leaves them at their defaults.
        known = {name: v for name, v in position.items() if name in stored or name not in LATER}
        saved = self._state.to_arrays(step=0)
        check_fits(path, saved)
        self._copy(saved)
        checkpoint = tf.train.Checkpoint(**self._copies, position=known)
        checkpoint.read(f"{path}/{PREFIX}").assert_consumed()
        self._state.from_arrays(tf.nest.map_structure(lambda copy: copy.numpy(), self._copies))
        return RunState.from_variables(position)

    def _copy(self, values):
        if self._copies is None:
            with tf.device("CPU"):
                self._copies = tf.nest.map_structure(tf.Variable, values)
        else:
            tf.nest.map_structure(lambda copy, value: copy.assign(value), self._copies, values)

    def _write_best(self, name):
        path = self._folder / "best" / name
        weights = {name: self._copies[name] for name in GROUPS_OF_WEIGHTS if name in self._copies}
        with files.sealed(path, self._run) as folder:
            tf.train.Checkpoint(**weights).write(str(folder / PREFIX))
        # This path, as the newest may be of steps that a rollback has undone.
        keep(path.parent, [str(path)], self._run)
        name_as_latest(path)


def find(
    folder: epath.PathLike,
    which: str,
    tell: Callable[[str], None] = print,
    run: str | None = None,
) -> str:
    """Finds the newest or the best undamaged checkpoint of a run; returns its path.

    Args:
        folder: of the checkpoints.
        which: "newest" or "best".
        tell: takes a line for the user on each damaged checkpoint.
        run: id of the run that it must be of; None for any.

    Raises:
        ValueError: if there is none, all are damaged, or it is of another run.
    """
    folder = epath.Path(folder)
    part = folder / "best" if which == "best" else folder
    path = newest_undamaged(part, tell, tidy=False, run=run)
    if path is None:
        raise ValueError(f"There is no {which} checkpoint in {folder}.")
    return path


def load_model(path: str, model: keras.Model, averages: bool = False) -> None:
    """Restores the variables of a model of any precision from a checkpoint.

    Args:
        path: of the checkpoint.
        model: a built model.
        averages: restores the averaged weights, which a run with ema_decay evaluates.

    Raises:
        ValueError: if the checkpoint is of another architecture.
    """
    variables = by_path(model.variables)
    floats = {path: v for path, v in variables.items() if v.dtype.is_floating}
    groups = {"model": variables, "averages": floats} if averages else {"model": variables}
    check_fits(path, groups)
    # In this order: the averages replace the weights.
    for name, group in groups.items():
        checkpoint = tf.train.Checkpoint(**{name: group}).read(f"{path}/{PREFIX}")
        checkpoint.expect_partial().assert_existing_objects_matched()
