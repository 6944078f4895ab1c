"""Code of the user's that a configuration names, as FILE.py:NAME or package.module:NAME.

A configuration keeps such a text with the hash of the code behind it, FILE.py:NAME@SHA256, so
that it stands for one version whatever becomes of the file. The code is found by its hash: as it
was read in this process, or in the folder of a run, which has a copy.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from etils import epath

from keras_preact.support import code_files, own_code
from keras_preact.support.console import say
from keras_preact.support.own_code import Code
from keras_preact.support.text import aligned, printable, shown

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

# Fields that may name code of the user's.
FIELDS = ("unit", "shortcut")
# Of their copies, in the folder of a run.
FOLDER = "code"
OWN = "FILE.py:NAME or package.module:NAME of your own"
_REFERENCE = re.compile(r"(?P<where>.+):(?P<name>[^:@]*)(@(?P<digest>[0-9a-f]{64}))?", re.DOTALL)


class Reference(NamedTuple):
    """A text that names code: where it lies, the name in it, and the hash of the code if known."""

    where: str
    name: str
    digest: str | None

    def __str__(self) -> str:
        return f"{self.where}:{self.name}" + (f"@{self.digest}" if self.digest else "")


@dataclasses.dataclass(frozen=True)
class CodeRecord:
    """What the record of a run says of the user's code.

    Args:
        file: that it was read from, for people.
        sha256: of the code, as the configuration has it.
        files: the sha256 of each copy, by its path in the folder; the first is the file's.
        package: the installed package that its relative imports refer to; "" without one.
    """

    file: str
    sha256: str
    files: dict[str, str]
    package: str = ""

    def __post_init__(self):
        if not self.files or self.sha256 != own_code.digest_of(self.files):
            raise ValueError("the sha256 of code must be that of its files")
        for name in self.files:
            if not name.endswith(".py") or name.startswith("/") or ".." in name.split("/"):
                raise ValueError(
                    "the files of code must lie below its folder and end in .py. "
                    f"Received: {shown(name)}"
                )


def parse(text: str) -> Reference | None:
    """Returns the parts of a text that names code; None for a name of a table."""
    found = _REFERENCE.fullmatch(text)
    return found and Reference(found["where"], found["name"], found["digest"])


def label(text: str) -> str:
    """The name of a unit or a shortcut for people: "SqueezeUnit" of my_units.py:SqueezeUnit."""
    reference = parse(text)
    return reference.name if reference else text


def identity(text: str) -> str:
    """A text that is equal for the same code, wherever it lies: NAME@SHA256."""
    reference = parse(text)
    return f"{reference.name}@{reference.digest}" if reference and reference.digest else text


# By hash: code that this process has read, and folders of runs that have a copy.
known: dict[str, Code] = {}
copies: dict[str, tuple[epath.Path, CodeRecord]] = {}


def remember(folder: epath.Path, records: Mapping[str, CodeRecord]) -> None:
    """Makes the copies in the folder of a run known; nothing is read until it is needed."""
    for flag, record in records.items():
        copies[record.sha256] = folder / flag, record


def of(config: "TrainConfig") -> dict[str, Code]:
    """The user's code that a configuration names, by field.

    Raises:
        ValueError: if it is not there, or no longer what it was.
    """
    references = {flag: parse(getattr(config, flag)) for flag in FIELDS}
    return {flag: find(flag, named) for flag, named in references.items() if named}


def record(code: Code) -> CodeRecord:
    """Returns what the record of a run keeps of code."""
    file = code.place if "://" in code.place else os.path.abspath(code.place)
    return CodeRecord(file, code.digest, code.digests, code.package)


def check_copies(folder: epath.Path, records: Mapping[str, CodeRecord]) -> None:
    """Raises ValueError if a copy in the folder of a run is missing or has changed."""
    for flag, found in records.items():
        code_files.read_copy(folder / flag, found.files, found.package)


def of_run(
    config: "TrainConfig",
    recorded: "TrainConfig",
    folder: epath.Path,
    records: Mapping[str, CodeRecord],
) -> tuple["TrainConfig", list[str]]:
    """Takes the copies of a run for the same code, or code that is gone, in a configuration.

    Args:
        config: for the run to go on with, or to be evaluated.
        recorded: configuration of the run.
        folder: of its copies.
        records: of its code.

    Returns:
        The configuration, and lines for people.

    Raises:
        ValueError: if code of the same name has changed, or is gone without a copy.
    """
    changes, notes = {}, []
    for flag in FIELDS:
        text, was = getattr(config, flag), getattr(recorded, flag)
        now, before = parse(text), parse(was)
        if now is None:
            continue
        is_same_name = before is not None and now.name == before.name
        if now.digest is None:
            if not is_same_name:
                code_files.read(now.where, flag)  # raises
            notes.append(f"{printable(now.where)} is gone: {flag} is the copy in {folder / flag}.")
        elif is_same_name and now.digest != before.digest:
            raise _changed(flag, now, records.get(flag), folder / flag)
        if is_same_name:
            changes[flag] = was
    return dataclasses.replace(config, **changes) if changes else config, notes


def _changed(flag, now, then, folder):
    code = find(flag, now)
    was = then.files if then else {}
    rows = [
        (code.places.get(path, path), was.get(path, "(none)"), code.digests.get(path, "(none)"))
        for path in {**was, **code.digests}
        if was.get(path) != code.digests.get(path)
    ]
    return ValueError(
        f"{flag}={printable(now.where)}:{now.name} has changed since the run began. Leave the "
        f"flag out to go on with the copy of then, in {folder}; or give --overwrite or another "
        "--run_dir to train the new one. The sha256 of these files differ:\n"
        + aligned(("file", "in the run", "now"), rows)
    )


def find(flag, reference):
    """The code of a hash."""
    if reference.digest in known:
        return known[reference.digest]
    if reference.digest in copies:
        folder, found = copies[reference.digest]
        code = code_files.read_copy(folder, found.files, found.package)
        say(f"Running code from the folder of a run: {folder / code.main}")
    else:
        code = code_files.read(reference.where, flag)
        if reference.digest is not None and code.digest != reference.digest:
            raise ValueError(
                f"{flag} must name code of the sha256 after its @. Received: "
                f"{shown(str(reference))}, whose sha256 is {code.digest}"
            )
    return known.setdefault(code.digest, code)


def names_code(config: "TrainConfig") -> bool:
    """Whether a configuration names code of the user's."""
    return any(parse(getattr(config, flag)) for flag in FIELDS)


def is_known(config: "TrainConfig") -> bool:
    """Whether a configuration names no code but such as this process has imported."""
    named = [parse(getattr(config, flag)) for flag in FIELDS]
    return all(found is None or found.digest in known for found in named)
