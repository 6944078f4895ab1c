"""Reasons to save and stop: Ctrl-C, SIGTERM, SIGHUP, the time limit."""

import collections
import contextlib
import signal
import threading
import time
from collections.abc import Callable

from keras_preact.support.signals import Interrupted, heard

TIME_UP_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: start again later


class Interruption:
    """Inside this context, a first signal sets `requested`, and a second ends the process.

    Both act at once, whatever the program computes. Outside the main thread, where Python
    allows no signal handlers, signals act as usual.

    Args:
        limit_seconds: time limit; `requested` becomes true one interval between two looks
            before it. None for no limit.
        tell: takes a line for the user.
    """

    def __init__(
        self, limit_seconds: float | None = None, tell: Callable[[str], None] = lambda line: None
    ):
        self._limit_seconds, self._tell = limit_seconds, tell
        self._began = self._looked = time.monotonic()
        # Only the last few: an interval with a compilation is soon forgotten.
        self._intervals_seconds = collections.deque(maxlen=10)
        self._signal: int | None = None
        self._time_is_up = False

    @property
    def requested(self) -> bool:
        """Whether to stop; look at it after each step."""
        now = time.monotonic()
        if self._limit_seconds is not None:
            self._intervals_seconds.append(now - self._looked)
            left = self._limit_seconds - (now - self._began)
            self._time_is_up = self._time_is_up or left <= max(self._intervals_seconds)
        self._looked = now
        return self._signal is not None or self._time_is_up

    def restart_clock(self) -> None:
        """Excludes the time since the last look from the intervals."""
        self._looked = time.monotonic()

    def interrupted(self, where: str) -> Interrupted:
        """Returns the exception to raise; `where` names the last step and its checkpoint."""
        if self._signal is None and self._time_is_up:
            minutes = self._limit_seconds / 60
            why = f"the {minutes:g} minutes allowed are over"
            return Interrupted(f"{why}, {where}", TIME_UP_EXIT_CODE)
        # No signal here: another worker received one.
        number = self._signal or signal.SIGTERM
        return Interrupted(f"{signal.Signals(number).name}, {where}", 128 + number)

    def __enter__(self):
        self._context = contextlib.ExitStack()
        if threading.current_thread() is threading.main_thread():
            self._context.enter_context(heard(self._hear, lambda number, frame: None))
        return self

    def __exit__(self, *exception):
        self._context.close()

    def _hear(self, number):
        self._signal = number
        name = signal.Signals(number).name
        self._tell(f"{name}: stopping after this step. A second signal ends at once.")
