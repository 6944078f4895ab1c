"""The files of a folder of images, with what tells whether they have changed since."""

import contextlib
import dataclasses
import functools
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import cache
from keras_preact.data.reading import list_folder, reason

# The size of a file that is not known, or that is no regular file which may be read.
UNKNOWN = -1

# Files that a thread looks at before it takes others.
_PART = 1000


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in the order of their labels, then of their names.

    Args:
        paths: of the files.
        labels: int32 (count,); of several labels, float32 (count, classes) of zeros and ones.
        sizes: in bytes, or `UNKNOWN`; int64 (count,).
        modified: times in nanoseconds, or `cache.UNTRUSTED`; int64 (count,).
    """

    paths: list[str]
    labels: np.ndarray
    sizes: np.ndarray
    modified: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    def select(self, mask: np.ndarray) -> "Listing":
        """Returns the files for which mask, boolean (count,), is true."""
        paths = [self.paths[index] for index in np.flatnonzero(mask)]
        return Listing(paths, self.labels[mask], self.sizes[mask], self.modified[mask])


def list_files(folders: Sequence[epath.Path], rule: str, nested: bool = False) -> Listing:
    """Lists the files of folders, one folder for each label.

    Files whose names begin with a dot are left out.

    Args:
        folders: on a disk or in a bucket.
        rule: that the folders must keep, for the error.
        nested: whether files of folders in these folders count.

    Raises:
        ValueError: if one is no folder or cannot be listed.
    """
    now = time.time_ns()
    # Threads: each question to a file server takes a while.
    with ThreadPoolExecutor() as pool:
        find = functools.partial(_list, rule=rule, now=now, nested=nested)
        found = list(pool.map(find, folders))
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), list(map(len, found)))
    return _listing([row for some in found for row in some], labels)


def look_at_files(paths: Sequence[str], labels: np.ndarray) -> Listing:
    """Looks at files by their paths; one that is not there is of unknown size.

    Args:
        paths: on a disk or in a bucket.
        labels: of the files, as in `Listing`.
    """
    now = time.time_ns()
    parts = [paths[begin : begin + _PART] for begin in range(0, len(paths), _PART)]
    with ThreadPoolExecutor() as pool:
        rows = pool.map(lambda part: [_look(path, now) for path in part], parts)
        return _listing([row for part in rows for row in part], labels)


def is_local(path: os.PathLike | str) -> bool:
    """Whether a path is of this machine, not of a bucket."""
    return "://" not in os.fspath(path)


def _listing(rows, labels):
    paths, *numbers = zip(*rows, strict=True) if rows else ((), (), ())
    sizes, modified = (np.array(column, np.int64) for column in numbers)
    return Listing(list(paths), labels, sizes, modified)


def _list(folder, rule, now, nested, above=frozenset()):
    """(path, size, modification time) of each file of a folder, sorted by name."""
    rows, folders = [], []
    if not is_local(folder):
        for path in list_folder(folder, rule):
            if path.is_dir():
                folders.append(path)
            else:
                rows.append((os.fspath(path), UNKNOWN, cache.UNTRUSTED))
    else:
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):
                        row = _row(entry, now)
                        rows.append(row) if row else folders.append(entry.path)
        except (OSError, tf.errors.OpError) as error:
            raise ValueError(f"{rule} Received: {folder}: {reason(error)}") from error
    # A link may lead back to a folder above it.
    above = above | {os.path.realpath(folder)} if nested else above
    for path in folders if nested else ():
        if os.path.realpath(path) not in above:
            rows += _list(path, rule, now, nested, above)
    return sorted(rows)


def _row(entry, now):
    """(path, size, modification time) of a file, None for a folder."""
    try:
        status = entry.stat()
    except OSError:
        # Such as a link to nothing: it is listed with the damaged files.
        return entry.path, UNKNOWN, cache.UNTRUSTED
    return None if stat.S_ISDIR(status.st_mode) else _state(entry.path, status, now)


def _look(path, now):
    if is_local(path):
        with contextlib.suppress(OSError, ValueError):
            return _state(path, os.stat(path), now)
    return path, UNKNOWN, cache.UNTRUSTED


def _state(path, status, now):
    if not stat.S_ISREG(status.st_mode) or not _is_readable(path, status):
        return path, UNKNOWN, cache.UNTRUSTED
    return path, *cache.stamp(status, now)


def _is_readable(path, status):
    """Whether this user may read a file, which does not show in its modification time."""
    for_all = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
    return status.st_mode & for_all == for_all or os.access(path, os.R_OK)
