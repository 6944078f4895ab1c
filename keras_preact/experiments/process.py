"""One run of an experiment as a process of train.py, and the parts of the machine it may use."""

import contextlib
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etils import epath

from keras_preact.experiments import train_flags
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.support import machine
from keras_preact.training.steps import schedules

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Records of signal and gradient in a run, beside that before the first step.
RECORDS = 4
_RECORD_STEPS = 20_000
_TAIL_BYTES = 8192
# Lines of a log: the command that begins it, and the error that ends it.
_COMMAND, _ERROR = "$ ", "Error: "


class Slot(NamedTuple):
    """A part of the machine for one run at a time.

    Args:
        cores: numbers of the processor's cores; None for all.
        gpu: as in CUDA_VISIBLE_DEVICES; None for all, or none where there are none.
    """

    cores: frozenset[int] | None = None
    gpu: str | None = None


def slots(count: int) -> list[Slot]:
    """Divides the machine among runs: its GPUs in turn, or without a GPU its cores."""
    if count == 1:
        return [Slot()]
    if gpus := machine.gpus():
        return [Slot(gpu=gpus[number % len(gpus)]) for number in range(count)]
    cores = machine.core_numbers()
    if len(cores) < count:
        return [Slot()] * count
    return [Slot(frozenset(cores[number::count])) for number in range(count)]


def command(experiment: Experiment, trial: Trial, minutes: float | None = None) -> list[str]:
    """The command of a run, with every flag.

    Args:
        experiment: of the run.
        trial: the run.
        minutes: after which it saves and stops; default: never.
    """
    fields = {
        "log_propagation_steps": _steps_between_records(experiment, trial),
        **experiment.fields(trial.row),
        "seed": trial.seed,
        "run_dir": str(experiment.run_dir(trial)),
        "resume": True,
        "max_runtime_minutes": minutes,
    }
    return [sys.executable, "-m", "keras_preact", "train", *train_flags.texts(fields)]


def _steps_between_records(experiment, trial):
    config = experiment.config(trial)
    if config.log_propagation_steps:
        return config.log_propagation_steps
    if config.train_epochs or (config.train_steps is None and config.schedule_epochs):
        # The images that make an epoch are not counted yet.
        return _RECORD_STEPS
    steps = config.train_steps or config.schedule_steps or schedules.PAPER_SCHEDULE_STEPS
    return -(-steps // RECORDS)


def records(experiment: Experiment, trial: Trial, train_steps: int) -> int:
    """The number of a run's records of signal and gradient, after that before its first step."""
    return -(-train_steps // _steps_between_records(experiment, trial))


class TrainProcess:
    """A process that trains; its output goes to a log beside the folder of its run.

    Args:
        trial: the run.
        arguments: of the process.
        log: file of its output, which is added to.
        slot: part of the machine that it may use.
    """

    def __init__(self, trial: Trial, arguments: Sequence[str], log: epath.Path, slot: Slot):
        self.trial, self.slot = trial, slot
        self.log = _local(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as file:
            file.write(f"{_COMMAND}{shlex.join(arguments)}\n".encode())
            file.flush()
            # In a session of its own: Ctrl-C is for the runner, which asks each run once to stop.
            with _on_cores(slot.cores):
                self._process = subprocess.Popen(
                    arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                    env=environment(slot),
                )

    def ended(self) -> int | None:
        """Returns the exit code, negative for a signal; None while the process runs."""
        return self._process.poll()

    def ask_to_stop(self) -> None:
        """Asks the run to save and stop."""
        if self.ended() is None:
            # A scheduler may have sent SIGTERM to all processes; SIGHUP never is a second signal.
            nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            self._process.send_signal(signal.SIGTERM if nohup else signal.SIGHUP)

    def wait(self) -> int:
        return self._process.wait()

    def last_line(self) -> str:
        """The last line of the output; "starts" before the first one."""
        line = next((line for line in reversed(self._tail()) if line.strip()), "")
        return "starts" if not line or line.startswith(_COMMAND) else line

    def last_words(self) -> str:
        """The error that the output ends with, else its last line."""
        lines = self._tail()
        for number in range(len(lines) - 1, -1, -1):
            if lines[number].startswith(_ERROR):
                return "\n".join(lines[number:]).removeprefix(_ERROR)
        return self.last_line()

    def _tail(self):
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
                return file.read().decode(errors="replace").splitlines()
        except OSError:  # somebody has deleted it
            return []


def _local(log):
    """The log, or where that would lie in a bucket, a file of its name in the temporary folder."""
    if "://" not in os.fspath(log):
        return pathlib.Path(log)
    return pathlib.Path(tempfile.gettempdir()) / "-".join(log.parts[-2:])


def environment(slot: Slot) -> dict[str, str]:
    """The environment of a process that finds this package and its part of the machine."""
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    if slot.gpu is not None:
        # Several runs may share a GPU: none takes all of its memory at the start.
        own |= {"CUDA_VISIBLE_DEVICES": slot.gpu, "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
    return {**os.environ, **own}


@contextlib.contextmanager
def _on_cores(cores):
    """A context whose child processes run on some cores: they inherit those of this thread."""
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def stopping(processes: Sequence[TrainProcess]) -> Iterator[TrainProcess]:
    """Asks processes to save and stop, and yields each once it has ended."""
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.wait()
        yield process
