"""The actions of every run: log, record propagation, evaluate, save, profile."""

import tensorflow as tf
from etils import epath

from keras_preact.training.reporting.propagation_recorder import PropagationRecorder
from keras_preact.training.run_in_progress import Run
from keras_preact.training.steps import rows
from keras_preact.training.trainer import Action


def standard_actions(run: Run) -> tuple[list[Action], list[Action]]:
    """Returns the actions that run before a user's own, and those that run after them.

    A user's own can use the evaluation. They run before saving, as a resumed run does not
    repeat what was due at its checkpoint.
    """
    config = run.config
    before: list[Action] = [Log(run)]
    if config.log_propagation_steps:
        recorder = None
        if run.devices.writes:
            recorder = PropagationRecorder(run.state.network, run.data, config)
        before.append(RecordPropagation(run, recorder))
    before.append(Evaluate(run))
    after: list[Action] = [Save(run)]
    if config.profile_steps:
        profile = Profile(
            config.profile_steps, run.folder.tensorboard if run.devices.writes else None
        )
        # First to stop and last to start: no other action is part of the profile.
        before.insert(0, profile.stop)
        after.append(profile.start)
    return before, after


def next_multiple(every: int, done: int) -> int:
    """Returns the smallest multiple of `every` above `done`."""
    return (done // every + 1) * every


class Log(Action):
    """Prints the means over the steps since the last log, and writes them for TensorBoard."""

    uses_network = False

    def __init__(self, run: Run):
        self._run = run

    def next_due(self, done: int) -> int:
        steps = self._run.config.log_steps
        return min(next_multiple(steps, done), self._run.next_evaluation(done))

    def run(self, done: int) -> None:
        run = self._run
        means = run.means()
        weight_norm = float(rows.norm(tf.convert_to_tensor(run.state.rows.weights)))
        learning_rate = float(run.schedule(done - 1))
        # An evaluation prints its own line.
        run.writer.log(done, means, learning_rate, weight_norm, show=not run.evaluates(done))


class RecordPropagation(Action):
    """Records signal and gradient in each unit, also before the first step and after the last.

    Args:
        run: in progress; all its processes check for divergence before a record.
        recorder: measures; None in processes that write nothing.
    """

    def __init__(self, run: Run, recorder: PropagationRecorder | None):
        self._run, self._recorder = run, recorder

    def begin(self, run: Run) -> None:
        if self.next_due(run.done - 1) == run.done:
            self.run(run.done)

    def next_due(self, done: int) -> int:
        every = self._run.config.log_propagation_steps
        return min(next_multiple(every, done), self._run.train_steps)

    def run(self, done: int) -> None:
        run = self._run
        run.refuse_divergence()
        # A resumed run may have recorded this step before.
        if self._recorder is None or run.writer.has_propagation(done):
            return
        try:
            run.writer.propagation(self._recorder.measure(done))
        except ArithmeticError as error:
            run.writer.line(f"No record of signal and gradient after step {done:,}: {error}")
        run.restart_clocks()


class Evaluate(Action):
    """Evaluates, and writes metrics of the evaluation and of training since the one before."""

    uses_network = False

    def __init__(self, run: Run):
        self._run = run

    def begin(self, run: Run) -> None:
        if not run.evaluated:
            self.run(run.done)

    def next_due(self, done: int) -> int:
        return self._run.next_evaluation(done)

    def run(self, done: int) -> None:
        run = self._run
        evaluation = run.evaluate()
        if evaluation is None:
            run.stop()
        run.means()
        means = run.step_metrics.since_evaluation()
        run.writer.evaluation(done, evaluation, means, float(run.schedule(done - 1)))
        run.writer.curves(run.schedule.drop_steps)
        if run.is_over:
            run.writer.classes(done, evaluation)


class Save(Action):
    """Saves every checkpoint_steps steps and after each evaluation."""

    uses_network = False

    def __init__(self, run: Run):
        self._run = run

    def begin(self, run: Run) -> None:
        # A rollback from the first steps needs a checkpoint.
        if run.has_unsaved_evaluation or (run.done == 0 and run.config.on_nan == "rollback"):
            run.save()

    def next_due(self, done: int) -> int:
        steps = self._run.config.checkpoint_steps
        return min(next_multiple(steps, done), self._run.next_evaluation(done))

    def run(self, done: int) -> None:
        self._run.save()


class Profile:
    """A profile for TensorBoard, with an action that starts it and one that stops it.

    Args:
        steps: first and last step of the profile, counted from 1.
        folder: TensorBoard's; None in processes that write nothing.
    """

    def __init__(self, steps: tuple[int, int], folder: epath.PathLike | None):
        self.first, self.last = steps
        self.start, self.stop = _StartProfile(self), _StopProfile(self)
        self._folder, self._records = folder, False

    def begin(self) -> None:
        """Starts TensorFlow's profiler."""
        if self._folder is not None:
            tf.profiler.experimental.start(str(self._folder))
            self._records = True

    def end(self) -> None:
        """Writes the profile, if it has been started."""
        if self._records:
            tf.profiler.experimental.stop()
            self._records = False


class _StartProfile(Action):
    uses_network = False

    def __init__(self, profile: Profile):
        self._profile = profile

    def begin(self, run: Run) -> None:
        if run.done == self._profile.first - 1:
            self.run(run.done)

    def next_due(self, done: int) -> int | None:
        before = self._profile.first - 1
        return before if done < before else None

    def run(self, done: int) -> None:
        self._profile.begin()


class _StopProfile(Action):
    uses_network = False

    def __init__(self, profile: Profile):
        self._profile = profile

    def next_due(self, done: int) -> int | None:
        return self._profile.last if done < self._profile.last else None

    def run(self, done: int) -> None:
        self._profile.end()

    def close(self) -> None:
        # Training may end before the last step of the profile.
        self._profile.end()
