"""The training loop: take the steps up to the next due action, then run what is due."""

import contextlib
from collections.abc import Sequence

from keras_preact.training import held_out
from keras_preact.training.run_in_progress import Run
from keras_preact.training.steps.scores import Evaluation, MultiLabelEvaluation
from keras_preact.training.steps.step_metrics import DivergenceError


class Action:
    """An action between the steps of a run, for `training.run(config, actions=[...])`.

    Any object with `next_due` and `run` will do; the rest is optional.

    Attributes:
        uses_network: whether `begin` or `run` reads or changes variables of `run.state.network`.
            They are brought up to date before, and taken over after it. True where absent.
    """

    uses_network = True

    def begin(self, run: Run) -> None:
        """Prepares for the steps after `run.done`: at the start and after each rollback."""

    def next_due(self, done: int) -> int | None:
        """Returns the next step, above `done`, after which to run; None for never again."""
        raise NotImplementedError(f"{type(self).__name__} must define next_due(done)")

    def run(self, done: int) -> None:
        """Runs after `done` steps."""
        raise NotImplementedError(f"{type(self).__name__} must define run(done)")

    def close(self) -> None:
        """Cleans up when training ends, also with an error."""


class Trainer:
    """Takes the steps of a run, and runs the actions between them.

    Args:
        run: begins at `run.done`.
        actions: run in this order if several are due after the same step.
    """

    def __init__(self, run: Run, actions: Sequence[Action]):
        self._run, self._actions = run, actions

    def fit(self) -> Evaluation | MultiLabelEvaluation:
        """Trains to the end; returns the evaluation after the last step.

        A test split is then evaluated, once; see `held_out`.

        Raises:
            DivergenceError: if the loss becomes NaN or infinite and the run may not be rolled
                back; checkpoints stay as they are.
            Interrupted: if asked to stop; the run has been saved.
            SaveError: if saving fails twice in a row.
            UnreadableError: as `Run.take` does.
        """
        with self._run.in_session(), contextlib.ExitStack() as ending:
            for action in self._actions:
                ending.callback(getattr(action, "close", lambda: None))
            while True:
                try:
                    evaluation = self._train()
                    break
                except DivergenceError as error:
                    self._run.roll_back(error)
            self._report()
            return evaluation

    def _train(self):
        run, batches, compiled = self._run, self._run.batches(), False
        for action in self._actions:
            if begin := getattr(action, "begin", None):
                with self._network_for(action):
                    begin(run)
        while not run.is_over:
            due = [_next_due(action, run.done) for action in self._actions]
            nearest = min(step for step in (*due, run.train_steps) if step is not None)
            run.take(batches, nearest - run.done)
            if not compiled:
                # The first launch compiles; its time is not typical.
                run.restart_clocks()
                compiled = True
            if run.is_asked_to_stop():
                # Before the actions: none of them can delay or prevent saving.
                run.save()
                run.stop()
            for action, step in zip(self._actions, due, strict=True):
                if step == run.done:
                    with self._network_for(action):
                        action.run(run.done)
        run.checkpoints.wait()
        return run.evaluation

    def _report(self):
        run = self._run
        if run.stops_early:
            run.writer.line(f"Stopped early after step {run.done:,}: {run.monitor}")
        run.writer.finish(run.done, run.monitor)
        if held_out.is_due(run):
            held_out.report(run)

    def _network_for(self, action):
        if getattr(action, "uses_network", True):
            return self._run.state.in_network()
        return contextlib.nullcontext()


def _next_due(action, done):
    step = action.next_due(done)
    if step is not None and step <= done:
        raise ValueError(
            f"next_due(done) of {type(action).__name__} must return a step above done, or None. "
            f"Received: next_due({done}) = {step}"
        )
    return step
