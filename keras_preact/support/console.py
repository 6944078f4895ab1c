"""Prints on, whatever becomes of the output: broken pipe, full disk, closed terminal."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm  # else imported late: `keras-preact` alone needs no package

_STREAMS = {1: "stdout", 2: "stderr"}

# What takes no longer needs no progress bar; off a terminal, a line follows every minute.
_PATIENCE_SECONDS = 1.5
_SILENCE_SECONDS = 60


class _Unbreakable:
    """A text stream that drops what cannot be written.

    Args:
        stream: the stream beneath; None where the process was started without one.
    """

    def __init__(self, stream: TextIO | None):
        # Open for as long as the process lasts.
        self._stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115

    def write(self, text: str) -> int:
        """Writes text; escapes characters that the stream's encoding lacks."""
        with _survived():
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        """Writes the buffered text."""
        with _survived():
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether a terminal shows the stream."""
        with _survived():
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stdout() -> TextIO:
    """Returns the present sys.stdout, made unbreakable."""
    return _wrapped(sys.stdout)


def breakable_stdout() -> TextIO:
    """Returns the stream beneath sys.stdout, where writing raises OSError as usual.

    Characters that its encoding lacks are escaped.
    """
    stream = sys.stdout._stream if isinstance(sys.stdout, _Unbreakable) else sys.stdout
    with contextlib.suppress(AttributeError):  # another program's stream
        stream.reconfigure(errors="backslashreplace")
    return stream


@contextlib.contextmanager
def unbreakable() -> Iterator[None]:
    """A context in which printing to sys.stdout and sys.stderr raises no OSError."""
    before = {name: getattr(sys, name) for name in _STREAMS.values()}
    for name, stream in before.items():
        setattr(sys, name, _wrapped(stream))
    try:
        yield
    finally:
        for name, stream in before.items():
            getattr(sys, name).flush()
            setattr(sys, name, stream)


def survive() -> None:
    """Makes sys.stdout and sys.stderr unbreakable for the rest of the process.

    Python flushes both at its end, and would turn a failure into another exit code. A missing
    file descriptor leads to os.devnull: otherwise the next file that is opened, such as a
    checkpoint, would receive the output.
    """
    for descriptor, name in _STREAMS.items():
        _open_missing(descriptor)
        setattr(sys, name, _wrapped(getattr(sys, name)))


def _wrapped(stream):
    return stream if isinstance(stream, _Unbreakable) else _Unbreakable(stream)


def _open_missing(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        os.dup2(opened, descriptor)
        if opened != descriptor:
            os.close(opened)


def _survived():
    # ValueError: the stream has been closed.
    return contextlib.suppress(OSError, ValueError)


def say(text: str) -> None:
    """Prints a line that stays, beside any bar, from any thread; goes on where it cannot."""
    from tqdm import tqdm

    stream = stdout()
    tqdm.write(text, file=stream)
    stream.flush()


def bar(iterable: Iterable | None = None, *, disable: bool = False, **options: Any) -> "tqdm":
    """A progress bar on stderr, as wide as the terminal; there is none off a terminal.

    Args:
        iterable: what the bar counts; None for a bar that is updated by hand.
        disable: shows no bar on a terminal either.
        options: further ones of tqdm, such as total.
    """
    from tqdm import tqdm

    hidden = disable or not sys.stderr.isatty()
    return tqdm(iterable, dynamic_ncols=True, disable=hidden, **options)


@contextlib.contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows how far a pass has come, once it takes longer than a second or two.

    A terminal shows a bar that goes away at the end, anything else a line now and then.

    Args:
        what: is done, as in "Checking image files".
        total: number of things to do.

    Yields:
        A function that counts further ones as done.
    """
    due, done = time.monotonic() + _PATIENCE_SECONDS, 0
    shown = bar(total=total, desc=what, delay=_PATIENCE_SECONDS, leave=False)

    def advance(count: int) -> None:
        nonlocal due, done
        done += count
        shown.update(count)
        if shown.disable and time.monotonic() > due:
            due = time.monotonic() + _SILENCE_SECONDS
            say(f"{what}: {done:,} of {total:,}")

    with contextlib.closing(shown):
        yield advance
