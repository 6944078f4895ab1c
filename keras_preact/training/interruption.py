"""Ctrl-C and SIGTERM, heard at the next step boundary."""

import signal
import threading


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, has saved, and can be resumed."""

    def __init__(self, signal_number: int | None):
        # None: another worker was asked, and all stop.
        number = signal_number or signal.SIGTERM
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Interruption:
    """A context in which the first SIGINT or SIGTERM only sets `signal_number`.

    A second one acts as if this context did not exist. Outside the main thread,
    where Python allows no handlers, it does nothing.
    """

    def __init__(self):
        self.signal_number = None
        self._previous = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self.signal_number is not None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *exception):
        self._restore()

    def _remember(self, number, frame):
        self.signal_number = number
        self._restore()

    def _restore(self):
        while self._previous:
            signal.signal(*self._previous.popitem())
