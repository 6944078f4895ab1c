"""Runs an experiment: finished runs are skipped, broken ones resumed, runs of others left alone."""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence

from keras_preact.experiments import process, results
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.process import Slot, TrainProcess
from keras_preact.experiments.results import Ending
from keras_preact.support.errors import RunError
from keras_preact.support.lock import InUseError, locked
from keras_preact.support.program import USAGE_ERROR
from keras_preact.training import DivergenceError
from keras_preact.training.interruption import TIME_UP_EXIT_CODE

_POLL_SECONDS = 0.2
_STATUS_SECONDS = 60
# 128 and the numbers of SIGHUP, SIGINT and SIGTERM: the run has been saved.
_STOPPED = (129, 130, 143)
_IN_USE = " is in use by "


class RunsFailedError(RunError):
    """Some runs of an experiment failed; the others are done."""


class TimeIsUpError(RunError):
    """The time limit of an experiment; all runs have been saved."""

    exit_code = TIME_UP_EXIT_CODE


@dataclasses.dataclass(frozen=True)
class Limits:
    """How many runs this process takes.

    Args:
        parallel_runs: at a time.
        minutes: after which runs are saved and stopped; None for never.
    """

    parallel_runs: int = 1
    minutes: float | None = None


Start = Callable[[Trial, Sequence[str], object, Slot], TrainProcess]


class Runner:
    """Runs the trials of an experiment.

    Args:
        experiment: of the trials.
        trials: to run, in order.
        limits: of this process.
        say: receives a line about each run.
        ended: called after each run that ended, as to write the report anew.
        start: starts a process; `TrainProcess` by default.

    Attributes:
        counts: number of runs by what became of them, in words.
    """

    def __init__(
        self,
        experiment: Experiment,
        trials: Sequence[Trial],
        limits: Limits,
        say: Callable[[str], None],
        ended: Callable[[], None] = lambda: None,
        start: Start = TrainProcess,
    ):
        self._experiment, self._limits, self._say = experiment, limits, say
        self._ended, self._start = ended, start
        self._waiting = collections.deque(trials)
        self._total, self._running = len(self._waiting), {}
        self._free = process.slots(limits.parallel_runs)
        self._began, self._last_error = time.monotonic(), ""
        self.counts: collections.Counter[str] = collections.Counter()

    def run(self) -> None:
        """Runs all trials of this process's part.

        Raises:
            TimeIsUpError: if the time limit passed before all were done.
            RunsFailedError: if a run failed, after the others; at once where two fail alike.
        """
        told = time.monotonic()
        try:
            while self._waiting or self._running:
                while self._waiting and self._free and not self._time_is_up():
                    self._begin(self._waiting.popleft())
                if not self._running and self._time_is_up():
                    break
                time.sleep(_POLL_SECONDS)
                self._take_ended()
                if time.monotonic() - told > _STATUS_SECONDS:
                    told = time.monotonic()
                    self._tell_status()
        except BaseException:
            for running in process.stopping(list(self._running)):
                self._running.pop(running).close()
            raise
        if self._waiting or self.counts["stopped"]:
            raise TimeIsUpError(
                f"{self.summary()}. The same command goes on with the runs that are left."
            )
        if self.counts["failed"]:
            raise RunsFailedError(
                f"{self.summary()}. The logs lie beside the runs; the same command tries those "
                "that failed again."
            )

    def summary(self) -> str:
        """The number of runs by what became of them."""
        counts = ", ".join(f"{count} {what}" for what, count in self.counts.items() if count)
        left = f", {len(self._waiting)} not begun" if self._waiting else ""
        return f"{self._total} runs: {counts or 'none begun'}{left}"

    def _begin(self, trial):
        run_dir = self._experiment.run_dir(trial)
        if self._is_done(self._state(trial)):
            return
        claim = contextlib.ExitStack()
        try:
            # Held until the run has ended: no other runner starts it meanwhile.
            claim.enter_context(locked(run_dir.parent / f"{run_dir.name}.claim", "output_dir"))
        except InUseError:
            self._leave_to_others(trial)
            return
        with claim:
            # Another runner may have ended it before the claim.
            state = self._state(trial)
            if self._is_done(state):
                return
            how = "begins" if state == "missing" else "goes on"
            self._say(f"{_name(trial)}: {how}. Run folder: {run_dir}")
            results.forget_ending(run_dir)
            slot = self._free.pop()
            arguments = process.command(self._experiment, trial, self._minutes_left())
            log = run_dir.parent / f"{run_dir.name}.log"
            self._running[self._start(trial, arguments, log, slot)] = claim.pop_all()

    def _state(self, trial):
        return results.of_run(self._experiment.run_dir(trial), trial.seed).state

    def _is_done(self, state):
        if state not in ("finished", "diverged"):
            return False
        self.counts[f"{state} before"] += 1
        return True

    def _take_ended(self):
        for running in list(self._running):
            code = running.ended()
            if code is None:
                continue
            with self._running.pop(running):
                self._free.append(running.slot)
                self._judge(running, code)
            self._ended()

    def _judge(self, running, code):
        trial, words = running.trial, running.last_words()
        run_dir = self._experiment.run_dir(trial)
        if code == USAGE_ERROR and _IN_USE in words:
            self._leave_to_others(trial)
            return
        if code == 0:
            result = results.of_run(run_dir, trial.seed)
            if result.state == "finished":
                self.counts["finished"] += 1
                self._say(f"{_name(trial)}: test error {result.test_error:.2%}")
                return
            words = f"it ended without an error at step {result.steps} of {result.train_steps}"
        if code in (*_STOPPED, TIME_UP_EXIT_CODE):
            self.counts["stopped"] += 1
            self._say(f"{_name(trial)}: stopped and saved. {words}")
            return
        state = "diverged" if code == DivergenceError.exit_code else "failed"
        if code < 0:
            words = f"killed by signal {-code}, as systems do when memory runs out. {words}"
        self.counts[state] += 1
        results.write_ending(run_dir, Ending(state, code, words))
        self._say(f"{_name(trial)}: {state}. {words}")
        if state == "failed":
            self._check_not_all_fail(words, running)

    def _check_not_all_fail(self, words, running):
        """Stops where two runs in a row fail alike, as the others would."""
        if words == self._last_error:
            raise RunsFailedError(
                f"Two runs failed alike, so the others were not begun: {words}\nLog: {running.log}"
            )
        self._last_error = words

    def _leave_to_others(self, trial):
        self.counts["taken by other processes"] += 1
        self._say(f"{_name(trial)}: another process has it")

    def _tell_status(self):
        for running in self._running:
            self._say(f"{_name(running.trial)}: {running.last_line()}")

    def _minutes_left(self):
        if self._limits.minutes is None:
            return None
        return max(self._limits.minutes - (time.monotonic() - self._began) / 60, 0.01)

    def _time_is_up(self):
        minutes = self._limits.minutes
        return minutes is not None and time.monotonic() - self._began >= 60 * minutes


def _name(trial):
    return f"{trial.row.name}, seed {trial.seed}"
