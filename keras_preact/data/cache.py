"""Keeps what the files of a data set have taught, so that the next start need not decode them.

A cache is one file, replaced whole. It lies beside the data, under a name that begins with a dot,
or, where that folder cannot be written to, in the user's cache folder. It may be deleted at any
time. One that is absent, damaged, of another version or of other data counts as none; so does a
folder that takes none, such as a bucket.

A file counts as unchanged while its size and modification time are what they were. A time so
recent that a later change might not alter it is not trusted.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import shutil
import stat
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_preact.support import files, records
from keras_preact.version import __version__

_WHAT = "keras_preact cache 1"
# Holds names of classes, but no names of files.
_MOST_HEADER_BYTES = 2**22
_DTYPES = ("uint8", "int32", "int64")
_CHECKSUM_BYTES = 8
# FAT keeps times to 2 s, and clocks of file servers differ.
_RECENT_NANOSECONDS = 3 * 10**9
# A process that was killed may leave a file of this age behind.
_ABANDONED_SECONDS = 24 * 3600

# The modification time of a file whose state must not be remembered.
UNTRUSTED = -1


@dataclasses.dataclass(frozen=True)
class _Header:
    what: str
    key: dict
    facts: dict
    arrays: dict


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a cache holds.

    Args:
        facts: JSON values by name.
        arrays: by name, of dtype uint8, int32 or int64.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


class Cache:
    """The cache of one data set in one folder.

    Args:
        folder: of the data.
        name: tells the caches of a folder apart, as in "folder-224".
        key: JSON values; a cache that was written with others is ignored. Versions of this
            package and of TensorFlow, whose decoders may differ, are added.
    """

    def __init__(self, folder: os.PathLike | str, name: str, key: Mapping[str, Any] | None = None):
        versions = {"keras_preact": __version__, "tensorflow": tf.__version__}
        self._key = {**(key or {}), "name": name, **versions}
        self.places = _places(os.fspath(folder), name)

    def read(self) -> Contents | None:
        """Returns the contents; None where there is no cache of this key that is whole."""
        for place in self.places:
            with contextlib.suppress(OSError, ValueError, MemoryError):
                return _read(place, self._key)
        return None

    def write(self, contents: Contents) -> pathlib.Path | None:
        """Replaces the cache; returns its path, None where none can be written."""
        arrays = {name: np.ascontiguousarray(array) for name, array in contents.arrays.items()}
        shapes = {name: [array.dtype.name, array.shape] for name, array in arrays.items()}
        header = _Header(_WHAT, self._key, dict(contents.facts), shapes)
        line = json.dumps(dataclasses.asdict(header)).encode() + b"\n"
        parts = [line, *(memoryview(array).cast("B") for array in arrays.values() if array.size)]
        checksum = _checksum(parts)
        for place in self.places:
            with contextlib.suppress(OSError):
                place.parent.mkdir(parents=True, exist_ok=True)
                _remove_abandoned(place)
                _check_room(place, sum(map(len, parts)))
                files.write_whole(place, [*parts, checksum], rivals=True)
                return place
        return None


def stamp(status: os.stat_result, now_nanoseconds: int) -> tuple[int, int]:
    """Returns the size of a file and its modification time, or `UNTRUSTED` if that is too recent.

    Args:
        status: of the file, taken before it was read.
        now_nanoseconds: `time.time_ns()` before that.
    """
    is_old = status.st_mtime_ns < now_nanoseconds - _RECENT_NANOSECONDS
    return status.st_size, max(status.st_mtime_ns, 0) if is_old else UNTRUSTED


def stamps(paths: Iterable[os.PathLike | str]) -> list[list] | None:
    """Returns [name, size, modification time] of each file; None if one cannot be trusted."""
    found, now = [], time.time_ns()
    for path in paths:
        try:
            size, modified = stamp(os.stat(path), now)
        except OSError:
            return None
        if modified == UNTRUSTED:
            return None
        found.append([os.path.basename(path), size, modified])
    return found


def join(texts: Sequence[str]) -> np.ndarray:
    """Packs strings without zero bytes, such as names of files, into an array of bytes."""
    joined = "\0".join(texts).encode(errors="surrogateescape")
    return np.frombuffer(joined, np.uint8)


def split(array: np.ndarray, count: int) -> list[str]:
    """Unpacks what `join` has packed.

    Raises:
        ValueError: if there are more or fewer strings.
    """
    texts = array.tobytes().decode(errors="surrogateescape").split("\0") if count else []
    if len(texts) != count:
        raise ValueError(f"there must be {count} strings. Received: {len(texts)}")
    return texts


def check_moments(mean: Any, std: Any, channels: int) -> tuple[list[float], list[float]]:
    """Checks mean and deviation of the channels of images, in 0 to 255.

    Raises:
        ValueError: if they are something else.
    """
    for values in (mean, std):
        if not isinstance(values, list) or len(values) != channels:
            raise ValueError(f"there must be a number for each of {channels} channels")
        if not all(type(value) is float and 0 <= value <= 255 for value in values):
            raise ValueError("means and deviations must be 0 to 255")
    if min(std) < 1:
        raise ValueError("deviations must be at least 1")
    return mean, std


def _places(folder, name):
    """The paths that a cache may have; the first that can be written to is taken."""
    if "://" in folder:
        return []
    folder = pathlib.Path(os.path.realpath(folder))
    places = [folder / f".keras_preact-{name}.cache"]
    # By the XDG Base Directory Specification, a relative path is ignored.
    root = os.environ.get("XDG_CACHE_HOME", "")
    root = root if os.path.isabs(root) else os.path.expanduser("~/.cache")
    if os.path.isabs(root):
        mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
        places.append(pathlib.Path(root) / "keras_preact" / f"{mark}-{name}.cache")
    return places


def _read(path, key):
    # Follows no link and waits for no pipe.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it must be a regular file")
        line = file.readline(_MOST_HEADER_BYTES)
        header = records.typed(records.parse_json(records.decoded(line)), _Header, exact=True)
        if (header.what, header.key) != (_WHAT, key):
            raise ValueError("it is of another version or of other data")
        kinds = {name: _kind(entry) for name, entry in header.arrays.items()}
        sizes = [np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in kinds.values()]
        # Before anything is allocated.
        if len(line) + sum(sizes) + _CHECKSUM_BYTES != status.st_size:
            raise ValueError("it must end where its header says")
        arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in kinds.items()}
        parts = [line]
        for array in arrays.values():
            if array.size:
                parts.append(memoryview(array).cast("B"))
                file.readinto(parts[-1])
        if _checksum(parts) != file.read():
            raise ValueError("its checksum must match")
    return Contents(header.facts, arrays)


def _kind(entry):
    """The dtype and the shape of an array."""
    match entry:
        case [dtype, [*shape]] if dtype in _DTYPES:
            if all(type(side) is int and 0 <= side < 2**40 for side in shape) and len(shape) <= 4:
                return dtype, shape
    raise ValueError(f"its arrays must have a dtype and a shape. Received: {records.short(entry)}")


def _checksum(parts):
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part, checksum)
    return b"%08x" % checksum


def _remove_abandoned(place):
    for path in place.parent.glob(f".{place.name}.*.tmp"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def _check_room(place, size):
    if shutil.disk_usage(place.parent).free < 2 * size:
        raise OSError(f"{place.parent} must have room for twice {size:,} bytes")
