"""What each file of an export is worth: the figures, and report.json."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from keras_preact.exporting.checks.parity import Agreement, Speed
from keras_preact.exporting.checks.tolerances import Tolerance
from keras_preact.support.files import sha256

KERAS = "keras"


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A file, or a folder of files, with what has been measured of it.

    Args:
        name: such as "tflite/int8".
        agreement: with the Keras model.
        speed: on this machine.
        worst_image: which image has the largest difference.
        path: in the export's folder; None of the Keras model itself.
        tolerance: that it met; None of the Keras model itself.
        files: size in bytes and SHA-256 of each file, by path in the export's folder.
    """

    name: str
    agreement: Agreement
    speed: Speed
    worst_image: str
    path: str | None = None
    tolerance: Tolerance | None = None
    files: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)

    @property
    def size_bytes(self) -> int | None:
        """Of all its files; None of the Keras model itself."""
        return sum(size for size, _ in self.files.values()) if self.files else None

    @property
    def sha256(self) -> str | None:
        """Of its file; of a folder, of the listing that `sha256sum` makes of its files."""
        if len(self.files) == 1:
            [(_, checksum)] = self.files.values()
            return checksum
        listing = "".join(f"{line}\n" for line in self.checksums())
        return hashlib.sha256(listing.encode()).hexdigest() if listing else None

    def checksums(self) -> list[str]:
        """Lines as `sha256sum` writes and checks them, from the export's folder."""
        return [f"{checksum}  {path}" for path, (_, checksum) in sorted(self.files.items())]


def describe_files(root: epath.Path, path: epath.Path) -> dict[str, tuple[int, str]]:
    """Size in bytes and SHA-256 of a file, or of all files in a folder, by path below root."""
    if path.is_dir():
        return {
            name: description
            for part in path.iterdir()
            for name, description in describe_files(root, part).items()
        }
    return {str(path.relative_to(root)): (path.stat().length, sha256(path))}


def to_json(facts: Mapping[str, Any], artifacts: Sequence[Artifact]) -> bytes:
    """report.json: facts about the export, then its artifacts."""
    entries = [
        {
            "name": artifact.name,
            "path": artifact.path,
            "size_bytes": artifact.size_bytes,
            "sha256": artifact.sha256,
            "tolerance": artifact.tolerance and dataclasses.asdict(artifact.tolerance),
            **dataclasses.asdict(artifact.agreement),
            "worst_image": artifact.worst_image,
            **dataclasses.asdict(artifact.speed),
            "files": {
                path: {"size_bytes": size, "sha256": checksum}
                for path, (size, checksum) in sorted(artifact.files.items())
            },
        }
        for artifact in artifacts
    ]
    return (json.dumps({**facts, "artifacts": entries}, indent=2) + "\n").encode()
