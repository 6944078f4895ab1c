"""Seconds of the parts of a start: from the program's first line to the end of its first step."""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator


class StartTimes:
    """Adds up the seconds that each part of a start takes, until two launches of steps are over.

    Imports, data, network, state and trace are timed by the clock. TensorFlow optimizes the graph
    and XLA compiles it inside of the first launch, where nobody can look: their seconds are those
    of the first launch without its trace and without its steps, of which each is taken to be as
    long as one of the second launch. "other" is the rest.

    Args:
        began: when the program began, by the clock; None without imports, where the calling
            process did other things before.
        clock: returns seconds.

    Attributes:
        seconds: of each part by name, in the order in which they began.
    """

    def __init__(self, began: float | None = None, clock: Callable[[], float] = time.perf_counter):
        self._clock, now = clock, clock()
        self._began = now if began is None else began
        self.seconds = {} if began is None else {"imports": now - began}
        self._first: tuple[float, int] | None = None
        self._compiler, self._total = "", 0.0
        self._is_complete = False

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what happens within as a part, or as more of it."""
        begin = self._clock()
        yield
        self._add(name, self._clock() - begin)

    def traced(self, function: Callable) -> Callable:
        """Returns a function for `tf.function`, whose trace is timed."""

        @functools.wraps(function)
        def timed(*arguments):
            begin = self._clock()
            result = function(*arguments)
            self._add("trace", self._clock() - begin)
            return result

        return timed

    @contextlib.contextmanager
    def launch(self, steps: int, compiler: str) -> Iterator[None]:
        """Times a launch.

        Args:
            steps: that it takes.
            compiler: name of what prepares the graph in the first launch.
        """
        begin = self._clock()
        yield
        now = self._clock()
        if self._is_complete:
            return
        if self._first is None:
            self._first, self._compiler = (now - begin, steps), compiler
            self._total = now - self._began
            return
        step = (now - begin) / steps
        self._complete({self._compiler: self._untraced - self._first[1] * step, "first step": step})

    def finish(self) -> None:
        """Completes the parts of a run that ends after its first launch."""
        if self._first and not self._is_complete:
            self._complete({"first launch": self._untraced})

    def told(self) -> str | None:
        """Describes the start in a line, once; None before it is known and afterwards."""
        if not self._is_complete or self._total == 0:
            return None
        total, self._total = self._total, 0.0
        parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in self.seconds.items())
        return f"First step after {total:.1f} s: {parts}"

    @property
    def _untraced(self):
        return self._first[0] - self.seconds.get("trace", 0.0)

    def _add(self, name, seconds):
        if not self._is_complete:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _complete(self, parts):
        self.seconds |= {name: max(seconds, 0.0) for name, seconds in parts.items()}
        self._total -= max(self._first[1] - 1, 0) * parts.get("first step", 0.0)
        self.seconds["other"] = max(self._total - sum(self.seconds.values()), 0.0)
        self._is_complete = True
