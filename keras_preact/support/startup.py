"""The start of a program: no notices of TensorFlow, no traceback where a signal ends it.

Needs the standard library alone, as it runs before Keras and TensorFlow are imported.
"""

import fcntl
import os
import pathlib
import signal
import sys
import time

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# Beside the package in a clone.
_SCRIPTS = ("train.py", "export.py")
CONSOLE_SCRIPT = "keras-preact"
DOORS = (CONSOLE_SCRIPT, _PACKAGE.name)


def _program() -> str:
    """The program of ours that runs, as it was called; "" for somebody else's.

    It is "keras-preact", a module after `python -m`, such as "keras_preact.analysis", or
    "train.py".
    """
    path = pathlib.Path(sys.argv[0] if sys.argv else "")
    if str(path) == "-m":
        # Python imports the package to find the module in it; until then only this names it.
        module = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
        return module if module.partition(".")[0] == _PACKAGE.name else ""
    of_clone = path.name in _SCRIPTS and path.resolve().parent == _PACKAGE.parent
    return path.name if of_clone or path.name == CONSOLE_SCRIPT else ""


# Found out at once, as sys.argv changes later.
PROGRAM = _program()
# Seconds by time.perf_counter.
BEGAN = time.perf_counter()

# Lines that native code prints in programs where all is well, as extended regular expressions.
_NOTICES = (
    # Information and warnings, in the forms of absl and of TensorFlow.
    r"^[IW][0-9]{4} [0-9:.]+ ",
    r"^[0-9-]+ [0-9:.]+: [IW] ",
    r"^WARNING: All log messages before absl::InitializeLog\(\)",
    # Errors to TensorFlow, no news to the user: no GPU, no AVX-512, parts that are linked twice.
    r"failed call to cuInit",
    r"oneDNN supports DT_U?INT8 only on platforms with",
    r"[Cc]omputation placer already registered",
    r"Unable to register cu(BLAS|DNN|FFT) factory",
    r"jpeg_mem\.cc:[0-9]+\] ",  # a damaged file, which our own messages name
    r"NodeDef mentions attribute [^ ]+ which is not in the op definition",
    # Second lines of such messages.
    r"^Skipping registering GPU devices\.\.\.",
    r"^To enable the following instructions: ",
    # TFLite's interpreter and converter.
    r"^INFO: .*TensorFlow Lite",
    r"^fully_quantize: ",
)


def debugging() -> bool:
    """Whether the command line has --debug, which shows everything."""
    return any(word in sys.argv for word in ("--debug", "--debug=true", "-debug"))


def begin() -> None:
    """Prepares a program for the seconds in which TensorFlow is imported.

    A signal ends it at once and in silence. TensorFlow's notices stay out of the terminal until
    the process ends, unless --debug is given.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: os._exit(128 + number))
    if not debugging():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        quiet()


def quiet() -> None:
    """Drops TensorFlow's notices for the rest of the process.

    Native code writes to file descriptor 2, which leads through a grep from here on. All but
    notices appears at once, also just before an abort: the grep outlives this process. Python's
    own sys.stderr goes past it. Does nothing where sys.stderr is not file descriptor 2, as in a
    notebook or after an earlier call, or where there is no grep.

    It does not know notices in other words than those listed here. Native lines may appear a
    moment after lines of Python that were printed later.
    """
    try:
        if sys.stderr.fileno() != 2:
            return
        terminal = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 3)
    except (AttributeError, OSError, ValueError):  # there is no stderr
        return
    reader, writer = os.pipe()
    try:
        os.posix_spawnp(
            "grep",
            ["grep", "--line-buffered", "--text", "-vE", "|".join(_NOTICES)],
            {**os.environ, "LC_ALL": "C"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, reader, 0),
                (os.POSIX_SPAWN_DUP2, terminal, 1),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
            setpgroup=0,  # Ctrl-C is for the program, whose last words it still shows
        )
    except OSError:
        os.close(terminal)
    else:
        options = {"encoding": sys.stderr.encoding, "errors": sys.stderr.errors}
        sys.stderr.flush()
        sys.stderr = open(terminal, "w", buffering=1, closefd=False, **options)  # noqa: SIM115
        os.dup2(writer, 2)
    finally:
        os.close(reader)
        os.close(writer)


def refuse(error: ImportError) -> None:
    """Raises an error; in a program of ours prints its message alone, and exits with 2."""
    if not PROGRAM or debugging():
        raise error
    print(f"Error: {error}", file=sys.stderr)
    sys.exit(2)
