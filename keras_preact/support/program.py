"""How a program begins and ends: flags in, exit codes out."""

import contextlib
import ctypes
import dataclasses
import errno
import os
import re
import signal
import sys
import threading
import traceback
import typing
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf
from absl import app

from keras_preact.support import console, flags, memory
from keras_preact.support.errors import SaveError
from keras_preact.support.signals import Interrupted, heard

USAGE_ERROR = 2

# Of storage: nobody's flags were wrong.
_IO_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
_MEMORY_ERRORS = (MemoryError, tf.errors.ResourceExhaustedError)
# The third is how copying to a GPU whose memory is full fails.
_MEMORY = re.compile(
    r"(OOM when|[Oo]ut of memory|Dst tensor is not initialized|CUDA_ERROR_OUT_OF_MEMORY)[^\n]*"
)
# With which TensorFlow surrounds messages.
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
        unfinished: what a user who interrupts the program should know, as in "nothing
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
    | MemoryError, or TensorFlow's likes of it | 1 |
    | Interrupted: the run has been saved | its own |
    | SIGINT, SIGTERM, SIGHUP | 130, 143, 129 |

    Each of them shows one message; --debug adds the traceback. Other errors pass. After
    the first signal `finally` clauses run; a second one ends the process at once.

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
        except _Terminated as error:
            name = signal.Signals(error.number).name
            _fail(error, f"ended by {name}; {unfinished}.", 128 + error.number)
        except KeyboardInterrupt as error:
            _fail(error, f"interrupted; {unfinished}.", 128 + signal.SIGINT)
        except Exception as error:
            if (explained := _explain(error, config_class)) is None:
                raise
            _fail(error, *explained)


class _Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, in the guise that code made to clean up after Ctrl-C knows."""

    number = signal.SIGTERM


class _HungUp(_Terminated):
    number = signal.SIGHUP


# Without arguments, as a class is all that `_nothing_swallowed` can raise anew.
_RAISED = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: _Terminated,
    signal.SIGHUP: _HungUp,
}


@contextlib.contextmanager
def _signals_raise():
    raised = False

    def act(number, frame):
        nonlocal raised
        if not raised:
            raised = True
            raise _RAISED[number]

    with heard(lambda number: None, act), _nothing_swallowed():
        yield


@contextlib.contextmanager
def _nothing_swallowed():
    """Raises an interrupt again that came in a `__del__`, from where Python passes nothing on."""
    main, previous = threading.main_thread().ident, sys.unraisablehook

    def again(unraisable):
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            previous(unraisable)
            return
        arguments = ctypes.c_ulong(main), ctypes.py_object(unraisable.exc_type)
        # Once this function, from where it would not be passed on either, has returned.
        threading.Timer(0.01, ctypes.pythonapi.PyThreadState_SetAsyncExc, arguments).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = previous


def _explain(error, config_class):
    """(message, exit code) of an error in the user's words; None for a bug."""
    if hasattr(error, "exit_code"):
        return str(error), error.exit_code
    of_tensorflow = isinstance(error, tf.errors.OpError)
    text = _NAMES.sub("", error.message) if of_tensorflow else str(error)
    if _of_storage(error, text, of_tensorflow):
        return text, SaveError.exit_code
    if isinstance(error, _MEMORY_ERRORS) or (of_tensorflow and _MEMORY.search(text)):
        return _of_memory(text, config_class), 1
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
