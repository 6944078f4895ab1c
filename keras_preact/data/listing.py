"""The files of a folder of images, with what tells whether they have changed since."""

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


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files in the order of their labels, then of their names.

    Args:
        paths: of the files.
        labels: int32 (count,).
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


def list_files(folders: Sequence[epath.Path], rule: str) -> Listing:
    """Lists the files of folders, one folder for each label.

    Files whose names begin with a dot and folders in these folders are left out.

    Args:
        folders: on a disk or in a bucket.
        rule: that the folders must keep, for the error.

    Raises:
        ValueError: if one is no folder or cannot be listed.
    """
    now = time.time_ns()
    # Threads: each question to a file server takes a while.
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(functools.partial(_list, rule=rule, now=now), folders))
    rows = [row for some in found for row in some]
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    labels = np.repeat(np.arange(len(folders), dtype=np.int32), list(map(len, found)))
    sizes, modified = (np.array(column, np.int64) for column in columns[1:])
    return Listing(list(columns[0]), labels, sizes, modified)


def is_local(path: os.PathLike | str) -> bool:
    """Whether a path is of this machine, not of a bucket."""
    return "://" not in os.fspath(path)


def _list(folder, rule, now):
    """(path, size, modification time) of each file of a folder, sorted by name."""
    if not is_local(folder):
        paths = [path for path in list_folder(folder, rule) if not path.is_dir()]
        return [(os.fspath(path), UNKNOWN, cache.UNTRUSTED) for path in paths]
    rows = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and (row := _row(entry, now)):
                    rows.append(row)
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{rule} Received: {folder}: {reason(error)}") from error
    return sorted(rows)


def _row(entry, now):
    try:
        status = entry.stat()
    except OSError:
        # Such as a link to nothing: it is listed with the damaged files.
        return entry.path, UNKNOWN, cache.UNTRUSTED
    if stat.S_ISDIR(status.st_mode):
        return None
    if not stat.S_ISREG(status.st_mode) or not _is_readable(entry, status):
        return entry.path, UNKNOWN, cache.UNTRUSTED
    return entry.path, *cache.stamp(status, now)


def _is_readable(entry, status):
    """Whether this user may read a file, which does not show in its modification time."""
    for_all = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH
    return status.st_mode & for_all == for_all or os.access(entry.path, os.R_OK)
