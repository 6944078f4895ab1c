"""Checks that this installation is right and fast here.

Each line ends in ok or, after ->, in what to do. Exit code 0: all is well; 1: there is something
to do.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from keras_preact.doctor import gpu_tests, host, nvidia, verdicts
from keras_preact.doctor.child import Child, probed
from keras_preact.doctor.lines import Line, as_json, text

_SECONDS = 55
_PROBE_SECONDS = 10
_HIGHEST_SECONDS = 3600


class Section(NamedTuple):
    """A title, and the findings under it."""

    title: str
    lines: Iterable[Line]


def sections(
    child: Child,
    environment: Mapping[str, str] = os.environ,
    probe: Callable[[], dict] = lambda: probed(_PROBE_SECONDS),
    begin: Callable[[str], None] = lambda subject: None,
) -> Iterator[Section]:
    """All checks, each made when its line is taken.

    Args:
        child: runs the trials.
        environment: variables of the process.
        probe: returns the facts about NVIDIA's GPUs.
        begin: is told the subject of a check that may take a while.
    """
    trials = verdicts.Trials(child.ask, begin)
    yield Section("Installed", host.package_lines())
    yield Section("Machine", host.machine_lines())
    begin("NVIDIA driver")
    facts = probe()
    yield Section("NVIDIA", nvidia.lines(facts, environment))
    yield Section("TensorFlow", trials.device_lines(facts))
    yield Section("Arithmetic, compared with float64 in NumPy", trials.arithmetic_lines())
    yield Section("Speed", trials.speed_lines())
    yield Section("Tests marked gpu", gpu_tests.lines(trials.passed, bool(trials.gpus)))


def guarded(section: Section) -> Iterator[Line]:
    """The lines of a section; one on its failure in place of an exception."""
    try:
        yield from section.lines
    except Exception as error:
        # Every kind: the report goes on, whatever one check meets.
        finding = f"the check itself failed: {type(error).__name__}: {error}"
        yield Line(section.title.lower(), finding, "please report this line")


def start(command: str) -> None:
    """Prints the report and ends the process, with 0 if all is well, else with 1.

    Args:
        command: how the user called the program.
    """
    # Ends the process by an exception, so that the child ends with it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    parser = argparse.ArgumentParser(prog=command, description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the lines as JSON at the end")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=_SECONDS,
        help=f"in which the trials must end; default {_SECONDS}",
    )
    flags = parser.parse_args()
    began = time.monotonic()
    child = Child(began + flags.seconds)
    try:
        lines = _print(sections(child, begin=_show), as_text=not flags.json)
    finally:
        child.stop()
    to_do = sum(bool(line.advice) and not line.optional for line in lines)
    if flags.json:
        print(as_json(lines))
    else:
        print(f"\n{_summary(to_do)} ({time.monotonic() - began:.0f} s)")
    sys.exit(1 if to_do else 0)


def _seconds(words):
    if not words.isdecimal() or not 1 <= int(words) <= _HIGHEST_SECONDS:
        raise argparse.ArgumentTypeError(
            f"seconds must be a whole number from 1 to {_HIGHEST_SECONDS}. Received: {words!r}"
        )
    return int(words)


def _print(found, as_text):
    lines = []
    for section in found:
        if as_text:
            _show("")
            print(section.title, flush=True)
        for line in guarded(section):
            lines.append(line)
            if as_text:
                _show("")
                print(text(line), flush=True)
    return lines


def _show(subject):
    """Shows what is being checked, on a terminal, until the next line takes its place."""
    if sys.stderr.isatty():
        words = f"  {subject} ..." if subject else ""
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def _summary(to_do):
    if not to_do:
        return "All that was checked is well."
    return f"{to_do} line{'s' if to_do > 1 else ''} with something to do, after ->"
