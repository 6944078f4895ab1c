"""Ctrl-C, SIGTERM, SIGHUP, the end of the time allowed: reasons to save and stop."""

import collections
import contextlib
import signal
import threading
import time
from collections.abc import Callable

from keras_preact.support.signals import Interrupted, heard

TIME_UP_EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: to be started again


class Interruption:
    """A context in which the first of `SIGNALS` only makes `requested` true.

    It does so at once, whatever the program computes; a second signal ends the process
    at once. Outside the main thread, where Python allows no handlers, signals act as
    ever.

    Args:
        limit_seconds: after which `requested` becomes true by itself, one interval
            between two looks at it ahead; None for never.
        tell: takes a line for the user.
    """

    def __init__(
        self, limit_seconds: float | None = None, tell: Callable[[str], None] = lambda line: None
    ):
        self._limit_seconds, self._tell = limit_seconds, tell
        self._began = self._looked = time.monotonic()
        # The last few: one in which something was compiled is soon forgotten.
        self._intervals_seconds = collections.deque(maxlen=10)
        self._signal: int | None = None
        self._time_is_up = False

    @property
    def requested(self) -> bool:
        """Whether to stop; to be looked at after each piece of work."""
        now = time.monotonic()
        if self._limit_seconds is not None:
            self._intervals_seconds.append(now - self._looked)
            left = self._limit_seconds - (now - self._began)
            self._time_is_up = self._time_is_up or left <= max(self._intervals_seconds)
        self._looked = now
        return self._signal is not None or self._time_is_up

    def restart_clock(self) -> None:
        """What has been done since the last look is not typical of the pieces to come."""
        self._looked = time.monotonic()

    def interrupted(self, where: str) -> Interrupted:
        """The exception that ends the run; where says after which step, and as what it is saved."""
        if self._signal is None and self._time_is_up:
            minutes = self._limit_seconds / 60
            why = f"the {minutes:g} minutes allowed are over"
            return Interrupted(f"{why}, {where}", TIME_UP_EXIT_CODE)
        # None: another worker was asked, and all stop.
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
