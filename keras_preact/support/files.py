"""Writes files and folders whole or not at all, and finds damage."""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator

from etils import epath

from keras_preact.support import records

MANIFEST = "manifest.json"
# Finder leaves it in folders it has shown.
_OF_THE_SYSTEM = {".DS_Store"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file: its size in bytes and its SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files that lie in a folder itself; at least one.

    Args:
        files: by name.
        run: id of the run that the folder belongs to, if any.
    """

    files: dict[str, Entry]
    run: str | None = None

    def __post_init__(self):
        if not self.files:
            raise ValueError("files must name a file. Received: none")
        for name in self.files:
            # A path would lead out of the folder.
            if name in ("", ".", "..") or not name.isprintable() or re.search(r"[/\\]", name):
                raise ValueError(
                    "files must be named as they are called in the folder. "
                    f"Received: {records.short(name)}"
                )


def read_manifest(path: epath.PathLike) -> Manifest:
    """Reads the manifest in a file.

    Raises:
        ValueError: if it holds something else; it names the file and the field.
        OSError: if it cannot be read.
    """
    return records.read_json(path, Manifest, "a manifest")


def write_whole(
    path: epath.PathLike, data: bytes | Iterable[bytes], *, rivals: bool = False
) -> None:
    """Writes a file under a temporary name, then renames it: it is the old or the new one.

    Args:
        path: of the file.
        data: its bytes, or parts of them in order.
        rivals: whether other processes may write the file at the same time: the last wins.
    """
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}{f'.{uuid.uuid4().hex}' if rivals else ''}.tmp"
    try:
        with temporary.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


@contextlib.contextmanager
def sealed(path: epath.PathLike, run: str | None = None) -> Iterator[epath.Path]:
    """A context with a folder to fill, which gets its name once it is whole and on the disk.

    Its manifest holds the size and SHA-256 of each file. A folder that had the name before is
    deleted. A failure leaves nothing behind.

    Args:
        path: of the folder at the end.
        run: id of the run that it belongs to, for `run_of`.

    Yields:
        The folder, under a temporary name that begins with a dot.
    """
    path = epath.Path(path)
    temporary = path.parent / f".{path.name}.tmp"
    remove(temporary)
    try:
        # Without its parents: a folder that was removed meanwhile must not come back.
        temporary.parent.mkdir(exist_ok=True)
        temporary.mkdir()
        yield temporary
        manifest = {name: _describe(temporary / name) for name in _files(temporary)}
        record = {"files": manifest, **({"run": run} if run else {})}
        (temporary / MANIFEST).write_text(json.dumps(record, indent=2) + "\n")
        for name in (*manifest, MANIFEST, "."):
            _flush(temporary / name)
        remove(path)
        temporary.rename(path)
    except BaseException:
        remove(temporary)
        raise
    # The folder around it may be new too.
    for folder in (path.parent, path.parent.parent):
        _flush(folder)


def check_replaceable(folder: epath.Path, overwrite: bool, flag: str, what: str) -> None:
    """Refuses a folder that holds files of others, before any work begins.

    Args:
        folder: that a `sealed` folder shall replace; it need not exist.
        overwrite: whether an earlier one may be replaced.
        flag: that gave the folder.
        what: the contents, as in "an analysis".

    Raises:
        ValueError: if the folder is a file, holds an earlier one and overwrite is not set, or
            holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{flag} must be a folder. Received: {folder}, which is a file")
    # Hidden files count as well: everything in the folder is replaced.
    names = {path.name for path in folder.iterdir()} - _OF_THE_SYSTEM
    if others := names - _written(folder):
        raise ValueError(
            f"{flag} must be a new or empty folder, or that of an earlier {what.split()[-1]}. "
            f"Received: {folder}, which holds something else: {', '.join(sorted(others)[:3])}"
        )
    if names and not overwrite:
        raise ValueError(
            f"{folder} holds {what} already. Give --overwrite to replace it, or another --{flag}."
        )


def _written(folder):
    """The names of the files of a sealed folder, by its manifest; none without one."""
    try:
        return {MANIFEST, *read_manifest(folder / MANIFEST).files}
    except (OSError, ValueError):
        return set()


def damage(path: epath.PathLike) -> str | None:
    """Describes the damage to a `sealed` folder; None if it is whole."""
    path = epath.Path(path)
    try:
        expected = read_manifest(path / MANIFEST).files
    except FileNotFoundError:
        return f"it has no {MANIFEST}"
    except OSError as error:
        return f"its {MANIFEST} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"its {MANIFEST} cannot be read: {error}"
    for name, entry in expected.items():
        try:
            records.check_regular(path / name)
            found = _describe(path / name)
        except (OSError, ValueError) as error:
            return f"its {name} cannot be read: {getattr(error, 'strerror', error)}"
        if found["bytes"] != entry.bytes:
            return f"its {name} has {found['bytes']:,} bytes in place of {entry.bytes:,}"
        if found["sha256"] != entry.sha256:
            return f"its {name} has been changed: its SHA-256 is another"
    return None


def run_of(path: epath.PathLike) -> str | None:
    """The id of the run that a `sealed` folder belongs to; None if it names none."""
    try:
        return read_manifest(epath.Path(path) / MANIFEST).run
    except (OSError, ValueError):
        return None


def flush_tree(folder: epath.PathLike) -> None:
    """Writes a folder and everything in it through to the disk."""
    for path in epath.Path(folder).iterdir():
        flush_tree(path) if path.is_dir() else _flush(path)
    _flush(folder)


def sha256(path: epath.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    return _describe(epath.Path(path))["sha256"]


def lies_there(path: epath.PathLike) -> bool:
    """Whether there is a file, a folder or a link, even a broken one."""
    return epath.Path(path).exists() or os.path.islink(path)


def remove(path: epath.PathLike) -> None:
    """Deletes a folder or a file if it exists; it is never seen half-deleted."""
    path = epath.Path(path)
    if not lies_there(path):
        return
    if not path.name.startswith("."):
        hidden = path.parent / f".{path.name}.deleted"
        remove(hidden)
        path = path.rename(hidden)
    # The target of a link was not made here.
    path.rmtree() if path.is_dir() and not os.path.islink(path) else path.unlink()


def _files(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _describe(path):
    with epath.Path(path).open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": checksum}


def _flush(path):
    """Writes a file, or the names in a folder, through to the disk."""
    if "://" in os.fspath(path):
        return  # A bucket keeps what it has acknowledged.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
