"""Begins and ends a program: flags in, exit codes out."""

import contextlib
import dataclasses
import errno
import os
import re
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from absl import app

from keras_preact.support import console, flags, memory, own_code
from keras_preact.support.errors import SaveError
from keras_preact.support.signals import Interrupted, heard

USAGE_ERROR = 2

# Failures of storage, for which no flag is to blame.
_IO_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_MEMORY_ERRORS = (MemoryError, tf.errors.ResourceExhaustedError)
# "Dst tensor ..." is how copying to a GPU fails whose memory is full.
_MEMORY = re.compile(
    r"(OOM when|[Oo]ut of memory|Dst tensor is not initialized|CUDA_ERROR_OUT_OF_MEMORY)[^\n]*"
)
# TensorFlow's additions before and after a message.
_NAMES = re.compile(r"^\{\{[^}]*\}\} | ?\[Op:[^\]]*\].*")


def start(
    main: Callable[[dict], None],
    config_class: type,
    description: str,
    unfinished: str,
    command: str | None = None,
    words: str | None = None,
    recipes: bool = False,
) -> typing.NoReturn:
    """Runs a program and ends the process.

    Args:
        main: takes the fields that the user set, and their values.
        config_class: a dataclass made of `option`s; its fields become flags.
        description: of the program, for --help.
        unfinished: tells a user who interrupts the program how things stand, as in "nothing
            has been exported".
        command: how the user called the program; default: "python" and the file that runs.
        words: the name under which main takes the words beside flags; None allows no words.
        recipes: whether --recipe=NAME is a flag.
    """
    console.survive()
    flags.define(config_class)

    def run(arguments):
        if flags.debugging():
            keras.config.disable_traceback_filtering()
            tf.debugging.disable_traceback_filtering()
        main(flags.given(config_class) | ({words: tuple(arguments[1:])} if words else {}))

    argv = [command or f"python {sys.argv[0]}", *sys.argv[1:]]
    parser = flags.parser(description, config_class, words=words is not None, recipes=recipes)
    with ending(config_class, unfinished):
        app.run(run, argv=argv, flags_parser=parser)


@contextlib.contextmanager
def ending(config_class: type, unfinished: str) -> Iterator[None]:
    """A context that ends the process where it is left with an error or by a signal.

    | left with | exit code |
    |---|---|
    | ValueError, OSError | 2 |
    | OSError of storage that is full, broken or read-only | 74 |
    | an error with an `exit_code` | that |
    | MemoryError, or TensorFlow's own | 1 |
    | Interrupted: the run has been saved | its own |
    | SIGINT, SIGTERM, SIGHUP | 130, 143, 129 |

    Each of them shows one message; --debug adds the traceback. Other errors pass. After
    the first signal `finally` clauses run; a second signal ends the process at once. A signal
    that comes while Python deletes an object is ignored, and the next ends the process.

    Args:
        config_class: as in `start`.
        unfinished: as in `start`.
    """
    with _signals_raise():
        try:
            yield
        except Interrupted as interrupted:
            notes = getattr(interrupted, "__notes__", [])
            print("\n".join([f"Stopped: {interrupted}.", *notes]))
            sys.exit(interrupted.exit_code)
        except KeyboardInterrupt as error:
            number = getattr(error, "number", signal.SIGINT)
            name = signal.Signals(number).name
            how = "interrupted" if number == signal.SIGINT else f"ended by {name}"
            _fail(error, f"{how}; {unfinished}.", 128 + number)
        except Exception as error:
            if (explained := _explain(error, config_class)) is None:
                raise
            _fail(error, *explained)


class _Signalled(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP as an exception after which libraries clean up, as after Ctrl-C."""

    def __init__(self, number: int):
        super().__init__()
        self.number = number


@contextlib.contextmanager
def _signals_raise():
    raised = False

    def act(number, frame):
        nonlocal raised
        if not raised:
            raised = True
            raise _Signalled(number)

    with heard(lambda number: None, act):
        yield


def _explain(error, config_class):
    """(message for the user, exit code) of an error; None for a bug."""
    if hasattr(error, "exit_code"):
        return str(error), error.exit_code
    of_tensorflow = isinstance(error, tf.errors.OpError)
    text = _NAMES.sub("", error.message) if of_tensorflow else str(error)
    if _of_storage(error, text, of_tensorflow):
        return text, SaveError.exit_code
    if isinstance(error, _MEMORY_ERRORS) or (of_tensorflow and _MEMORY.search(text)):
        return _of_memory(text, config_class), 1
    is_told = isinstance(error, own_code.CodeError)
    if not is_told and (told := own_code.explained(error)) is not None:
        return told, USAGE_ERROR
    if isinstance(error, ValueError | OSError):
        return text, USAGE_ERROR
    return None


def _of_storage(error, text, of_tensorflow):
    if of_tensorflow:
        return any(os.strerror(number) in text for number in _IO_ERRORS)
    return isinstance(error, OSError) and error.errno in _IO_ERRORS


def _of_memory(text, config_class):
    found = _MEMORY.search(text)
    what = found[0] if found else text.strip().partition("\n")[0]
    advice = memory.advice(field.name for field in dataclasses.fields(config_class))
    return f"Memory ran out: {what or 'in Python'}" + (f"\nTo use less: {advice}" if advice else "")


def _fail(error, message, code):
    if flags.debugging():
        traceback.print_exception(error)
    print(f"Error: {message}", file=sys.stderr)
    sys.exit(code)
