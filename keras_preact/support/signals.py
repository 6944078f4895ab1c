"""Hears signals that end a program at once, whatever it computes."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

# A closed terminal sends SIGHUP.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Programs such as timeout send a signal to the process and to its group at once.
SAME_SIGNAL_SECONDS = 0.2


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, has saved, and can be resumed."""

    def __init__(self, why: str, exit_code: int):
        super().__init__(why)
        self.exit_code = exit_code


@contextlib.contextmanager
def heard(first: Callable[[int], None], handler: Callable) -> Iterator[None]:
    """A context in which `SIGNALS` are heard at once; the second ends the process.

    Python's own handlers wait until TensorFlow returns, which may take a compilation. SIGHUP
    is no second signal, as a closed terminal sends it more than once, and it stays ignored
    under nohup. Enter the context in the main thread.

    Args:
        first: takes the number of the first signal, at once, in another thread.
        handler: a handler of Python's, called later in the main thread.
    """
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [number for number in SIGNALS if not (nohup and number == signal.SIGHUP)]
    previous = {number: signal.signal(number, handler) for number in numbers}
    previous_fd = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_listen, args=(ear, first), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, earlier in previous.items():
            signal.signal(number, earlier)
        mouth.close()


def _listen(ear, first):
    heard_at = None
    with ear:
        while received := ear.recv(1):
            number = received[0]
            if number not in SIGNALS:
                continue
            now = time.monotonic()
            if heard_at is None:
                heard_at = now
                first(number)
            elif now - heard_at > SAME_SIGNAL_SECONDS and number != signal.SIGHUP:
                os._exit(128 + number)
