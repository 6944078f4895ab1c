"""Commands for the user to copy: they work from where the user stands."""

import os
import pathlib
import shlex
import shutil
import sys

from keras_preact.support import startup

# The folder of a clone, with train.py in it; or site-packages.
_ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def this_python() -> str:
    """How the user's shell calls the Python that runs this."""
    if shutil.which("python") == sys.executable:
        return "python"
    return shlex.quote(_near(sys.executable))


def door() -> str:
    """How the user's shell calls the door: "keras-preact" or "python -m keras_preact"."""
    # Installed beside the Python that runs it.
    path = os.path.join(os.path.dirname(sys.executable), startup.CONSOLE_SCRIPT)
    if startup.PROGRAM == "keras_preact" or not os.path.exists(path):
        return module("keras_preact")
    found = shutil.which(startup.CONSOLE_SCRIPT)
    is_found = found is not None and _is_same(found, path)
    return startup.CONSOLE_SCRIPT if is_found else shlex.quote(_near(path))


def program(verb: str) -> str:
    """How the user's shell calls a program: "python export.py", or "keras-preact export".

    The first in a clone, unless the user came through the door. Its path then begins as that of
    the running script: "../export.py" after "../train.py".
    """
    name = f"{verb}.py"
    if startup.PROGRAM in startup.DOORS or not os.path.exists(_ROOT / name):
        return f"{door()} {verb}"
    beside = os.path.join(os.path.dirname(sys.argv[0]), name)
    path = beside if _is_same(beside, _ROOT / name) else _near(str(_ROOT / name))
    return f"{this_python()} {shlex.quote(path)}"


def module(name: str) -> str:
    """How the user's shell calls a module of this package: "python -m keras_preact.NAME"."""
    call = f"{this_python()} -m {name}"
    if _is_same(os.curdir, _ROOT) or _is_same(_ROOT, *_default_search_path()):
        return call
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return f"PYTHONPATH={shlex.quote(os.pathsep.join(paths))} {call}"


def _default_search_path():
    """The folders that Python searches for modules, but for that of the running script."""
    try:
        # Python follows links here too.
        is_script = _is_same(os.path.dirname(os.path.realpath(sys.argv[0])), *sys.path[:1])
    except FileNotFoundError:  # the current folder has been deleted
        is_script = True
    return sys.path[1:] if is_script else sys.path


def _is_same(path, *others):
    for other in others:
        try:
            if os.path.samefile(path, other):
                return True
        except OSError:  # one of them is not there, as the current folder may be
            continue
    return False


def _near(path):
    """The path relative to the current folder if it lies below, else absolute."""
    try:
        relative = os.path.relpath(path)
    except FileNotFoundError:  # the current folder has been deleted
        return path
    return path if relative.startswith("..") else relative
