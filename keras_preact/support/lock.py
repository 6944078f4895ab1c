"""Locks a folder for one process at a time."""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import shlex
import socket
import stat
import sys
from collections.abc import Callable, Iterator

NAME = ".lock"

# First word of every lock file.
_BEGINS = "process "
# Others may remove the folder or its lock while this process takes it.
_ATTEMPTS = 100
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# Failures of the storage, which another folder would not mend.
_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class InUseError(ValueError):
    """Another process has the lock of a folder."""


@contextlib.contextmanager
def locked(folder: os.PathLike | str, flag: str = "run_dir") -> Iterator[Callable[[], bool]]:
    """A context that one process at a time can be in, for each folder.

    The folder and its parents are made, and removed again if they are left empty. The system
    holds the lock, so a killed process blocks nobody. A folder in a bucket, or on a file
    system without locks, is used unlocked; a line says so.

    Args:
        folder: path of the folder; it need not exist yet.
        flag: the flag that names it.

    Yields:
        A function that tells whether the folder still is this process's. It is not if somebody
        has deleted or moved it, or another process has taken its name since.

    Raises:
        InUseError: if another process has the lock.
        ValueError: if the folder cannot be written to, or something else lies there under the
            name of the lock.
        OSError: if the storage is full or fails.
    """
    if "://" in os.fspath(folder):
        _say_unlocked(folder, "buckets have no locks")
        yield lambda: True
        return
    folder, made = pathlib.Path(folder), []
    try:
        with _rule(folder, flag):
            file = _acquire(folder, flag, made)
        try:
            with _rule(folder, flag):
                os.ftruncate(file, 0)
                os.pwrite(file, f"{_this_process()}\n".encode(), 0)
            yield lambda: _lies_at(file, folder / NAME)
        finally:
            _release(file, folder)
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()


@contextlib.contextmanager
def _rule(folder, flag):
    try:
        yield
    except OSError as error:
        if error.errno in _FAILURES:
            raise
        where = f": {error.filename}" if error.filename else ""
        raise ValueError(
            f"{flag} must be a folder that can be written to. "
            f"Received: {folder} ({error.strerror}{where})"
        ) from error


def _acquire(folder, flag, made):
    """The descriptor of the folder's lock file, locked; adds the folders it makes to made."""
    for _ in range(_ATTEMPTS):
        _make(folder, made)
        try:
            # Follows no link, whose target would be overwritten; waits for no pipe.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(folder / NAME, flags, 0o666)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise
            raise _no_lock(folder, flag) from None
        taken = False
        try:
            _check_is_lock(file, folder, flag)
            _lock(file, folder, flag)
            taken = _lies_at(file, folder / NAME)
        finally:
            if not taken:
                os.close(file)
        if taken:
            return file
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder / NAME))


def _make(folder, made):
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            path.mkdir()
            made.append(path)


def _check_is_lock(file, folder, flag):
    """Raises ValueError for a file that is no lock of ours, as it would be overwritten."""
    begins = _BEGINS.encode()
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise _no_lock(folder, flag)
    # Shorter while it is written, or if its process was killed then.
    if not begins.startswith(os.pread(file, len(begins), 0)):
        raise _no_lock(folder, flag)


def _no_lock(folder, flag):
    return ValueError(
        f"{NAME} in {flag} must be absent, or the lock of another process of keras_preact. "
        f"Received: {folder / NAME}, which is something else. Move it, or give another --{flag}."
    )


def _lock(file, folder, flag):
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUseError(
            f"{folder} is in use by {_owner(file)}\n"
            f"Wait for it to end, stop it, or give another --{flag}."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _say_unlocked(folder, error.strerror)


def _release(file, folder):
    # Before it is unlocked: later the file may be another process's.
    if _lies_at(file, folder / NAME):
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()
    os.close(file)


def _lies_at(file, path):
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except OSError:
        return False


def _this_process():
    now = datetime.datetime.now(datetime.UTC)
    command = " ".join(shlex.join(sys.orig_argv).splitlines())
    since = f"{now:%Y-%m-%d %H:%M} UTC"
    return f"{_BEGINS}{os.getpid()} on {socket.gethostname()} since {since}: {command}"


def _owner(file):
    """The line with which the holder of the lock describes itself, once it has written it."""
    line, newline, _ = os.pread(file, 10_000, 0).decode(errors="replace").partition("\n")
    return line if newline else "another process"


def _say_unlocked(folder, reason):
    print(f"{folder} is not locked ({reason}): start no second process in it.")
