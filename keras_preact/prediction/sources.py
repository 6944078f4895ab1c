"""The image files that a user names: in a list, in a folder, or one by one."""

import dataclasses
import os
import stat
from collections.abc import Sequence

import tensorflow as tf
from etils import epath

from keras_preact.data.listing import is_local
from keras_preact.data.reading import reason
from keras_preact.support import records
from keras_preact.support.text import shown

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp")
LIST_SUFFIX = ".txt"
# A path of 200 letters for each of ten million files.
_MOST_LIST_BYTES = 2**31


@dataclasses.dataclass(frozen=True)
class Files:
    """Image files in order.

    Args:
        names: as the user gave them.
        folder: that relative names are below, with a slash at its end; "" for the current one.
        skipped: files of a folder that were left out, as their names are not those of images.
    """

    names: Sequence[str]
    folder: str = ""
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.names)

    def path(self, index: int) -> str:
        """Returns the path of a file."""
        return os.path.join(self.folder, self.names[index])


def find(source: os.PathLike | str) -> Files:
    """Lists the image files of a source; reads none of them.

    Args:
        source: an image file, whatever its name; a folder, all of whose files with an extension
            in `EXTENSIONS` are taken, also those in folders below, in the order of their names;
            or a file .txt with a path a line, relative to its own folder. If the first relative
            path leads nowhere from there, but somewhere from the current folder, all are
            relative to that. Hidden files and folders are left out of a folder.

    Raises:
        ValueError: if nothing is there, or it holds no image.
    """
    source = os.fspath(source)
    rule = "source must be an image file, a folder of images, or LIST.txt with a path a line."
    try:
        is_folder = epath.Path(source).is_dir()
        if not (is_folder or epath.Path(source).exists()):
            raise FileNotFoundError
        if is_folder:
            files = _in_folder(source)
        elif source.lower().endswith(LIST_SUFFIX):
            files = _in_list(source)
        else:
            return Files([source])
    except (OSError, KeyError, tf.errors.OpError) as error:
        why = "no such storage" if isinstance(error, KeyError) else reason(error)
        raise ValueError(f"{rule} Received: source={shown(source)}: {why}") from error
    if not files.names:
        found = f"no file {', '.join(EXTENSIONS)}" if is_folder else "an empty list"
        raise ValueError(f"{rule} Received: source={shown(source)}, with {found}")
    return files


def named(paths: Sequence[os.PathLike | str]) -> Files:
    """Returns files that are named one by one.

    Raises:
        ValueError: if one of them is a folder.
    """
    names = [os.fspath(path) for path in paths]
    for name in names:
        if is_local(name) and os.path.isdir(name):
            raise ValueError(
                f"Only image files may be named one by one; give a folder as source. "
                f"Received: {shown(name)}"
            )
    return Files(names)


def _in_list(path) -> Files:
    data = records.contents(path, _MOST_LIST_BYTES).removeprefix(b"\xef\xbb\xbf")
    lines = (line.removesuffix(b"\r") for line in data.split(b"\n"))
    names = [os.fsdecode(line) for line in lines if line]
    folder = os.path.dirname(path)
    first = next((name for name in names if is_local(name) and not os.path.isabs(name)), None)
    if first is not None and not os.path.lexists(os.path.join(folder, first)):
        folder = "" if os.path.lexists(first) else folder
    return Files(names, folder)


def _in_folder(folder) -> Files:
    found, skipped = [], 0
    walk = _walk(folder, ()) if is_local(folder) else _walk_bucket(folder)
    for name in walk:
        if name.lower().endswith(EXTENSIONS):
            found.append(name)
        else:
            skipped += 1
    return Files(found, skipped=skipped)


def _walk(folder, above):
    """Yields the files of a folder and of those below, by name; a link back to one above ends."""
    status = os.stat(folder)
    key = status.st_dev, status.st_ino
    if key in above:
        return
    with os.scandir(folder) as entries:
        rows = sorted((entry.name, entry.path, _is_folder(entry)) for entry in entries)
    for name, path, is_folder in rows:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _walk(path, (*above, key))
        else:
            yield path


def _is_folder(entry):
    try:
        return stat.S_ISDIR(entry.stat().st_mode) if entry.is_symlink() else entry.is_dir()
    except OSError:  # a link to nothing is a file that cannot be read
        return False


def _walk_bucket(folder):
    for path in sorted(epath.Path(folder).iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk_bucket(path)
        else:
            yield os.fspath(path)
