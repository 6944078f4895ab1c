import contextlib
import dataclasses
import errno
import functools
import os
import signal
import sys
import threading
import time

import pytest
import tensorflow as tf
from absl import flags as absl_flags

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.exporting import ExportConfig
from keras_preact.exporting.export_folder import ExportFolder
from keras_preact.support import flags, program, signals
from keras_preact.support.errors import RunError, SaveError
from keras_preact.support.signals import Interrupted
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.cluster import WorkerLostError
from keras_preact.training.steps.step_metrics import DivergenceError

FULL = OSError(errno.ENOSPC, "No space left on device", "/runs/first")
OOM = "OOM when allocating tensor with shape[128,16] and type float"


@dataclasses.dataclass
class NoAdvice:
    """Has no field that decides on memory."""


@contextlib.contextmanager
def ends_with(code, config=TrainConfig):
    with pytest.raises(SystemExit) as ended, program.ending(config, "nothing is done"):
        yield
    assert ended.value.code == code


def of_tensorflow(message, kind=tf.errors.ResourceExhaustedError):
    return kind(None, None, message)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("wrong"), 2),
        (FileNotFoundError(errno.ENOENT, "wrong"), 2),
        (FULL, 74),
        *((OSError(number, "wrong"), 74) for number in (errno.EDQUOT, errno.EIO, errno.EROFS)),
        (RunError("wrong"), 1),
        (DivergenceError("wrong"), 4),
        (SaveError("wrong"), 74),
        (WorkerLostError("wrong"), 75),
        (MemoryError("wrong"), 1),
        (of_tensorflow("/runs/first; No space left on device [Op:SaveV2]"), 74),
        (of_tensorflow("/runs/first; Input/output error", tf.errors.UnknownError), 74),
        (of_tensorflow(OOM), 1),
        (of_tensorflow("Dst tensor is not initialized.", tf.errors.InternalError), 1),
    ],
    ids=repr,
)
def test_an_error_ends_with_its_code_and_one_message(capsys, error, code):
    with ends_with(code):
        raise error
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ") and "Traceback" not in shown.err
    reason = getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)
    assert reason.partition(" [Op:")[0] in shown.err


@pytest.fixture
def started(monkeypatch):
    """Starts a program with arguments; returns what its main takes and how it ends."""

    def start(arguments, **options):
        taken = []
        values = absl_flags.FlagValues()
        for name in ("define", "given", "parser", "debugging"):
            bound = functools.partial(getattr(flags, name), values=values)
            monkeypatch.setattr(flags, name, bound)
        # absl's own wants the flags of the whole process.
        monkeypatch.setattr(
            program.app, "run", lambda main, argv, flags_parser: sys.exit(main(flags_parser(argv)))
        )
        monkeypatch.setattr(sys, "argv", ["program.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            program.start(taken.append, ExportConfig, "", "nothing is done", **options)
        return taken, ended.value.code

    return start


def test_main_takes_the_flags_that_were_given_and_words_under_their_name(started):
    arguments = ["compare", "--version=3", "runs/a", "runs/b"]
    taken, _ = started(arguments, words="words")
    assert taken == [{"version": 3, "words": ("compare", "runs/a", "runs/b")}]


def test_where_there_are_no_words_main_takes_none_of_them(started):
    assert started(["--version=3"], words="words")[0] == [{"version": 3, "words": ()}]


def test_a_program_without_words_refuses_them_and_its_main_takes_flags_alone(started, capsys):
    assert started(["--version=3"])[0] == [{"version": 3}]
    assert started(["--version=3", "runs/a"], command="python -m a.program") == ([], 2)
    error = capsys.readouterr().err
    assert "Only flags are understood. Received: runs/a" in error
    assert "python -m a.program --help" in error


@pytest.mark.parametrize("error", [KeyError("depth"), of_tensorflow("x", tf.errors.AbortedError)])
def test_a_bug_keeps_its_traceback(error):
    with pytest.raises(type(error)), program.ending(TrainConfig, "nothing is done"):
        raise error


def test_debug_shows_the_traceback_and_then_the_same_error(capsys, monkeypatch):
    monkeypatch.setattr(flags, "debugging", lambda: True)
    with ends_with(2):
        raise ValueError("wrong")
    *before, last = capsys.readouterr().err.splitlines()
    assert before[0].startswith("Traceback") and 'raise ValueError("wrong")' in "".join(before)
    assert last == "Error: wrong"


@pytest.mark.parametrize(
    ("config", "flag_names"),
    [
        (
            TrainConfig,
            ["global_batch_size", "gradient_accumulation_steps", "image_size", "precision"],
        ),
        (BenchmarkConfig, ["batch_size", "image_size"]),
        (ExportConfig, ["image_size"]),
        (NoAdvice, []),
    ],
)
def test_memory_that_runs_out_names_what_and_the_flags_that_help(capsys, config, flag_names):
    around = f"Graph execution error:\n\nDetected at node zeros\n\n{OOM}\n\t [[zeros]]\n [Op:x]"
    with ends_with(1, config):
        raise of_tensorflow(around)
    first, *advice = capsys.readouterr().err.splitlines()
    assert first == f"Error: Memory ran out: {OOM}"
    assert len(advice) == bool(flag_names)
    assert all(f"--{name}" in advice[0] for name in flag_names)


def test_a_run_that_was_saved_says_so_and_how_to_go_on(capsys):
    with ends_with(143):
        stopped = Interrupted("SIGTERM", 143)
        stopped.add_note("Continue with: --resume")
        raise stopped
    shown = capsys.readouterr()
    assert shown.out == "Stopped: SIGTERM.\nContinue with: --resume\n" and shown.err == ""


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (signal.SIGINT, "Error: interrupted; nothing is done.\n"),
        (signal.SIGTERM, "Error: ended by SIGTERM; nothing is done.\n"),
        (signal.SIGHUP, "Error: ended by SIGHUP; nothing is done.\n"),
    ],
)
def test_a_signal_runs_what_cleans_up_and_ends_with_a_line(capsys, number, line):
    before, cleaned = signal.getsignal(number), []
    with ends_with(128 + number):
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), number)  # as timeout does, to the process and to its group
            cleaned.append(True)
    assert cleaned and capsys.readouterr().err == line
    assert signal.getsignal(number) == before


def test_sigterm_leaves_no_unfinished_export(tmp_path):
    with ends_with(143, ExportConfig), ExportFolder(tmp_path / "export").staged() as stage:
        (stage / "saved_model").mkdir()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_second_signal_ends_at_once(monkeypatch, number, code):
    ended, codes = threading.Event(), []
    monkeypatch.setattr(os, "_exit", lambda code: (codes.append(code), ended.set()))
    monkeypatch.setattr(signals, "SAME_SIGNAL_SECONDS", 0.01)
    with ends_with(143):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            time.sleep(0.1)
            os.kill(os.getpid(), number)
            assert ended.wait(5)
    assert codes == [code]
