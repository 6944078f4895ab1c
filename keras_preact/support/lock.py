"""One process at a time in a folder."""

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

# How every lock begins.
_BEGINS = "process "
# Others may remove the folder, or its lock, between two steps of taking it.
_ATTEMPTS = 100
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
# Of storage, whichever folder the user had chosen.
_FAILURES = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


@contextlib.contextmanager
def locked(folder: os.PathLike | str, flag: str = "run_dir") -> Iterator[Callable[[], bool]]:
    """A context that one process at a time can be in, for each folder.

    The folder is made, with its parents, and removed again where it is left empty. The
    system holds the lock, so that a process that is killed blocks nobody. A folder in a
    bucket, or on a file system without locks, is used unlocked, which is said in a line.

    Args:
        folder: it need not exist yet.
        flag: by which the user chose it.

    Yields:
        A function that tells whether the folder still is this process's: it is not where
        somebody has deleted or moved it, or another process has taken its name since.

    Raises:
        ValueError: if another process is in, the folder cannot be written to, or what lies
            there under the name of the lock is no lock.
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
            # Not through a link, whose target would be written over; not waiting for a pipe.
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
    """Raises ValueError for a file that no process of this package wrote, as it is written over."""
    begins = _BEGINS.encode()
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise _no_lock(folder, flag)
    # One that is being written, or was when its process was killed, may be shorter.
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
        raise ValueError(
            f"{folder} is in use by {_owner(file)}\n"
            f"Wait for it to end, stop it, or give another --{flag}."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        _say_unlocked(folder, error.strerror)


def _release(file, folder):
    # While it is locked: after that the file may be another's.
    if _lies_at(file, folder / NAME):
        with contextlib.suppress(OSError):
            (folder / NAME).unlink()
    os.close(file)


def _lies_at(file, path):
    """Whether an open file still is the one with this name."""
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
    """What the process that holds the lock has written of itself; it may not have done so yet."""
    line, newline, _ = os.pread(file, 10_000, 0).decode(errors="replace").partition("\n")
    return line if newline else "another process"


def _say_unlocked(folder, reason):
    print(f"{folder} is not locked ({reason}): start no second process in it.")
