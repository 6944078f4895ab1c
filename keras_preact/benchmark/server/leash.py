"""Runs a command; ends it, with its children, when the standard input ends.

python -P leash.py COMMAND ARGUMENT... prints the id of the command's process.

The standard input is a pipe whose other end a benchmark holds. The pipe ends with the
benchmark, also where that is killed, so no server outlives it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

# A program that starts a container needs a moment to stop it.
STOP_SECONDS = 2


def run(command: list[str]) -> int:
    """Returns the exit code of the command, or 128 and the number of the signal that ended it."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        stderr=sys.stderr,
        start_new_session=True,
    ) as process:
        print(process.pid, flush=True)
        threading.Thread(target=_stop_at_the_end, args=(process,), daemon=True).start()
        code = process.wait()
    _signal(process, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _stop_at_the_end(process):
    sys.stdin.read()
    _signal(process, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    _signal(process, signal.SIGKILL)


def _signal(process, number):
    """Sends a signal to the command and to all that it has started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
