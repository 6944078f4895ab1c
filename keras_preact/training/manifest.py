"""The manifest of a sealed folder: its files with their sizes and checksums."""

import dataclasses
import re

from etils import epath

from keras_preact.support import records


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file: its size in bytes, and its SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The files of a folder, at least one, each by its name in the folder itself.

    Args:
        files: by name.
        run: id of the run that the folder is a part of, where it is one.
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


def read(path: epath.PathLike) -> Manifest:
    """The manifest that a file holds.

    Raises:
        ValueError: if it holds something else; it names the file and the field.
        OSError: if it cannot be read.
    """
    return records.read_json(path, Manifest, "a manifest")
