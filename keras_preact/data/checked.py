"""Which image files cannot be used, and which are copies: read once, then remembered."""

import dataclasses
import hashlib
import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import cache, limits
from keras_preact.data.augmentation import center_crop_covers
from keras_preact.data.cache import Cache, Contents
from keras_preact.data.listing import UNKNOWN, Listing, is_local
from keras_preact.data.reading import decodable, fingerprint, image_problem, reason
from keras_preact.data.sources import Moments
from keras_preact.support import console
from keras_preact.support.text import is_printable

# More than the largest image that may be decoded, at 8 bytes a pixel.
MAX_FILE_BYTES = 2**29

_KINDS_OF_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# After a pass that took longer, a line says where its results are kept.
_LONG_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class _Record:
    """What a cache holds.

    Args:
        names: of the files, below their folder.
        sizes: as in `Listing`.
        modified: as in `Listing`; `cache.UNTRUSTED` for a file that must be looked at again.
        fingerprints: as `CheckedFiles.fingerprints` returns them.
        problems: of bad files, by their index.
        moments: of the training images: their fingerprint, mean and deviation.
    """

    names: list[str]
    sizes: np.ndarray
    modified: np.ndarray
    fingerprints: np.ndarray
    problems: dict[int, str]
    moments: tuple[str, list[float], list[float]] | None


class CheckedFiles:
    """Image files that are decoded once, and then only where they have changed.

    Args:
        root: the folder that takes the cache; the names of files below it are kept relative to it.
        files: to check.
        image_size: height and width to which images are brought, in pixels.
        name: of the data set, as in "folder"; tells the caches of a folder apart.
    """

    def __init__(self, root: epath.Path, files: Listing, image_size: int, name: str = "folder"):
        self._files, self._covered = files, center_crop_covers(image_size)
        rules = [MAX_FILE_BYTES, limits.MAX_IMAGE_PIXELS, limits.MAX_SCANS]
        self._cache = Cache(root, f"{name}-{image_size}", {"rules": rules})
        self._root = root
        state, unknown = (np.full(len(files), number) for number in (cache.UNTRUSTED, UNKNOWN))
        names = relative_names(root, files.paths)
        self._record = _Record(names, files.sizes, state, unknown, {}, None)

    def problems(self) -> dict[int, str]:
        """Returns why a file cannot be used, by its index. Decodes new and changed files."""
        begun, problems = time.monotonic(), {}
        known = _recall(self._cache)
        unknown = self._take_known(known, problems)
        try:
            self._examine(unknown, problems)
        finally:
            # Whatever ended the pass: what it has found so far is kept.
            place = self._keep(known)
        if place and time.monotonic() - begun > _LONG_SECONDS:
            console.say(f"Kept in {place}: later starts decode new and changed files alone.")
        return dict(sorted(problems.items()))

    def fingerprints(self) -> np.ndarray:
        """Returns the fingerprint of each file's contents, int64 (count,), after `problems`.

        `UNKNOWN` for files that cannot be read. See `reading.fingerprint`.
        """
        return self._record.fingerprints

    def moments(self, files: Listing) -> Moments | None:
        """Returns mean and deviation of these training files, if they are known."""
        mark, known = self._fingerprint(files), self._record.moments
        return known[1:] if known and known[0] == mark else None

    def keep_moments(self, files: Listing, moments: Moments) -> None:
        """Remembers mean and deviation of the training files."""
        if mark := self._fingerprint(files):
            self._record = dataclasses.replace(self._record, moments=(mark, *moments))
            self._cache.write(_contents(self._record))

    def _take_known(self, known, problems):
        """Takes over what is known of unchanged files; returns the indices of all others."""
        files, record = self._files, self._record
        if known is None:
            return np.arange(len(files))
        self._record = record = dataclasses.replace(record, moments=known.moments)
        places = {name: place for place, name in enumerate(known.names)}
        places = np.array([places.get(name, -1) for name in record.names], np.int64)
        same = (places >= 0) & (files.modified != cache.UNTRUSTED)
        same[same] = (known.sizes[places[same]] == files.sizes[same]) & (
            known.modified[places[same]] == files.modified[same]
        )
        record.modified[same] = files.modified[same]
        record.fingerprints[same] = known.fingerprints[places[same]]
        for index in np.flatnonzero(same) if known.problems else ():
            if why := known.problems.get(int(places[index])):
                problems[int(index)] = record.problems[int(index)] = why
        return np.flatnonzero(~same)

    def _examine(self, unknown, problems):
        files, record = self._files, self._record
        with console.counting("Checking image files", len(unknown)) as advance:
            openable = np.array([i for i in unknown if self._may_be_opened(i)], np.int64)
            rest = set(unknown.tolist())
            for found in decodable([files.paths[i] for i in openable], self._covered):
                positions, fingerprints = found
                good = openable[positions]
                record.modified[good] = files.modified[good]
                record.fingerprints[good] = fingerprints
                rest.difference_update(good.tolist())
                advance(len(good))
            rest = sorted(rest)
            with ThreadPoolExecutor() as pool:
                found = pool.map(lambda i: examine(files.paths[i], self._covered), rest)
                for index, (why, contents) in zip(rest, found, strict=True):
                    advance(1)
                    if why:
                        problems[index] = why
                    if contents != UNKNOWN:
                        record.modified[index] = files.modified[index]
                        record.fingerprints[index] = contents
                        record.problems.update({index: why} if why else {})

    def _may_be_opened(self, index):
        # Names that TensorFlow cannot take are not printable either.
        path, size = self._files.paths[index], self._files.sizes[index]
        return path.isprintable() and (not is_local(path) or 0 <= size <= MAX_FILE_BYTES)

    def _fingerprint(self, files):
        """Tells the states of files apart; None where one of them is not to be trusted."""
        if cache.UNTRUSTED in files.modified:
            return None
        names = cache.join(relative_names(self._root, files.paths))
        parts = (names, files.sizes, files.modified)
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def _keep(self, known):
        """Writes the cache if it holds something else; returns its path if it is written."""
        new = _contents(self._record)
        if known is None or not _equal(new, _contents(known)):
            return self._cache.write(new)
        return None


def relative_names(root: epath.Path, paths: Sequence[str]) -> list[str]:
    """Returns paths relative to a folder, where they lie below it."""
    beginning = os.path.join(root, "")
    return [path.removeprefix(beginning) for path in paths]


def examine(path: str, covered: tuple[int, int]) -> tuple[str | None, int]:
    """Returns why a file cannot be used as an image, or None, and its fingerprint.

    The fingerprint is `UNKNOWN` where the file was not read, so that its contents say nothing.

    Args:
        path: of the file.
        covered: as for `reading.image_problem`.
    """
    try:
        if why := _why_unread(path):
            return why, UNKNOWN
        encoded = tf.io.read_file(path)
        return image_problem(encoded, covered), int(fingerprint(encoded))
    except (OSError, tf.errors.OpError) as error:
        return reason(error), UNKNOWN


def _why_unread(path):
    """Why TensorFlow must not open a file, or None."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8, and TensorFlow can open no other files"
    return why_unopened(path) if is_local(path) else None


def why_unopened(path: str) -> str | None:
    """Returns why a local file must not be opened, which may take forever, or None.

    Raises:
        OSError: if nothing is there, or it cannot be read.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return f"{_KINDS_OF_FILES.get(stat.S_IFMT(status.st_mode), 'something')}, no regular file"
    if status.st_size > MAX_FILE_BYTES:
        return f"{status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} of the largest images"
    return None


def _contents(record):
    numbers = np.array(sorted(record.problems), np.int64)
    arrays = {
        "names": cache.join(record.names),
        "sizes": record.sizes,
        "modified": record.modified,
        "fingerprints": record.fingerprints,
        "bad": numbers,
        "problems": cache.join([record.problems[number] for number in numbers]),
    }
    return Contents({"moments": record.moments and list(record.moments)}, arrays)


def _equal(left, right):
    same = (np.array_equal(left.arrays[name], right.arrays[name]) for name in left.arrays)
    return left.facts == right.facts and all(same)


def _recall(kept):
    """Returns the record in a cache; None if there is none, or it was made by hand."""
    contents = kept.read()
    try:
        return contents and _parse(contents)
    except (KeyError, TypeError, ValueError):
        return None


def _parse(contents):
    arrays, moments = contents.arrays, contents.facts["moments"]
    numbers = [arrays[name] for name in ("sizes", "modified", "fingerprints", "bad")]
    sizes, modified, fingerprints, bad = numbers
    count = len(sizes)
    if not all(part.dtype == np.int64 and part.ndim == 1 for part in numbers):
        raise ValueError("numbers must be rows of int64")
    if not len(modified) == len(fingerprints) == count or not all(0 <= n < count for n in bad):
        raise ValueError("all rows must be of the same files")
    whys = cache.split(arrays["problems"], len(bad))
    if not all(map(is_printable, whys)):
        raise ValueError("problems must be printable")
    if moments is not None:
        mark, mean, std = moments
        moments = str(mark), *cache.check_moments(mean, std, channels=3)
    names = cache.split(arrays["names"], count)
    problems = dict(zip(bad.tolist(), whys, strict=True))
    return _Record(names, sizes, modified, fingerprints, problems, moments)
