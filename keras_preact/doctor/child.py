"""Runs trials in a process that may die, hang or print anything."""

import contextlib
import json
import os
import pathlib
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

FOLDER = pathlib.Path(__file__).resolve().parent
MARK = "@doctor "
# Fatal lines of TensorFlow and absl: "F0000 00:00:...] words", "2026-...: F file.cc:1] words".
_FATAL = re.compile(r"^(?:F[0-9]{4} |[0-9-]+ [0-9:.]+: F ).*?\] (.*)$", re.MULTILINE)
_MOST_LETTERS = 300


class Child:
    """A process that answers trials; it is started again where one has ended it.

    Args:
        deadline: of all trials together, by `clock`.
        command: of the process.
        clock: returns seconds.
    """

    def __init__(
        self,
        deadline: float,
        command: list[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._deadline = deadline
        self._command = command or [sys.executable, "-P", str(FOLDER / "trials.py")]
        self._clock = clock
        self._process = None

    def ask(self, name: str, **options) -> dict:
        """The answer to a trial.

        Returns:
            What it returned; {"error": words} where it failed or ended the process, or
            {"late": seconds} where the time was up: those it had, 0 where it never began.
        """
        began = self._clock()
        if began >= self._deadline:
            return {"late": 0.0}
        if self._process is None:
            self._start()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{json.dumps([name, options])}\n")
            self._process.stdin.flush()
        try:
            answer = self._answers.get(timeout=max(0.0, self._deadline - self._clock()))
        except queue.Empty:
            self.stop()
            return {"late": self._clock() - began}
        if answer is None:
            answer = {"error": self._last_words()}
            self.stop()
        return answer

    def stop(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._errors.close()
            for stream in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None

    def _start(self):
        # In a file, as a pipe that nobody empties would fill up.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by stop()
        self._process = subprocess.Popen(
            self._command,
            # Memory of a GPU that others use too is taken as needed.
            env={
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "TF_FORCE_GPU_ALLOW_GROWTH": "true",
                **os.environ,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            errors="replace",
        )
        self._answers = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            if line.startswith(MARK):
                self._answers.put(json.loads(line.removeprefix(MARK)))
        self._answers.put(None)

    def _last_words(self):
        code = self._process.wait()
        self._errors.seek(0)
        return last_words(code, self._errors.read().decode(errors="replace"))


def last_words(code: int, errors: str) -> str:
    """How a process ended, and its own word on it.

    Args:
        code: its exit code, negative for a signal.
        errors: what it wrote to the standard error.
    """
    how = f"exit code {code}"
    if code < 0:
        how = f"the process was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            how += ", as systems do when memory runs out"
    fatal = _FATAL.search(errors)
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    words = fatal[1] if fatal else (lines[-1] if lines else "")
    return f"{how}: {words[:_MOST_LETTERS]}" if words else how


def probed(timeout_seconds: float, command: list[str] | None = None) -> dict:
    """The answer of probe.py; {"error": words} where it failed or took too long."""
    command = command or [sys.executable, "-P", str(FOLDER / "probe.py")]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_seconds
        )
        if done.returncode == 0:
            return json.loads(done.stdout.rstrip().rpartition("\n")[2])
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {timeout_seconds:.0f} seconds"}
    except ValueError:
        return {"error": "no answer"}
    return {"error": last_words(done.returncode, done.stderr)}
