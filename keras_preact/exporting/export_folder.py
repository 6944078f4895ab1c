"""The folder of an export: built under another name, seen only once all of it is proven."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator

from etils import epath

from keras_preact.data import DatasetInfo
from keras_preact.support import records
from keras_preact.support.files import flush_tree, remove, write_whole
from keras_preact.support.lock import locked
from keras_preact.support.paths import usable

SAVED_MODEL, TFLITE, REPORTS, SERVING = "saved_model", "tflite", "reports", "serving"
REPORT = "report"
# The SavedModel last: servers look for it.
_VERSIONED = (TFLITE, REPORTS, SAVED_MODEL)
# Fields of `DatasetInfo` that all versions share.
_SAME = ("class_names", "image_shape")


@dataclasses.dataclass(frozen=True)
class _Data:
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class _Record:
    """The part of report.json that all versions share."""

    data: _Data
    model_name: str


class ExportFolder:
    """The folder that exports of one net go to, a version each.

    | path | |
    |---|---|
    | saved_model/VERSION/ | for TensorFlow Serving, whose base path is saved_model |
    | tflite/VERSION/ | KIND.tflite |
    | reports/VERSION/ | report.md, report.json, report.png |
    | report.* | copies of those of the last export |
    | serving/ | what it takes to serve; kept as it is when further versions come |

    Args:
        path: the folder; it need not exist yet.
        version: of the export; by default the next free one.

    Raises:
        ValueError: if the folder holds something else, or the version already, or no export
            can live there; see `paths.usable`.
    """

    def __init__(self, path: epath.PathLike, version: int | None = None):
        self.path = usable(path, "output_dir")
        # Two names of a folder have one place beside it.
        is_local = "://" not in os.fspath(self.path)
        self._real = epath.Path(os.path.realpath(self.path)) if is_local else self.path
        self._wanted = version
        self.version = self._choose_version()

    @property
    def saved_model(self) -> epath.Path:
        """The folder of the SavedModel's version."""
        return self.path / SAVED_MODEL / str(self.version)

    def _choose_version(self):
        taken = self._versions()
        version = self._wanted or max(taken, default=0) + 1
        if version in taken:
            raise ValueError(
                f"version must be one that {self.path} does not hold yet, as an export is never "
                f"replaced. Received: version={version}, beside {sorted(taken)}"
            )
        return version

    def _versions(self):
        if not self.path.exists():
            return set()
        if not self.path.is_dir():
            raise ValueError(f"output_dir must be a folder. Received: {self.path}, a file")
        names = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        folders = [self.path / name for name in _VERSIONED if name in names]
        is_export = names & {SAVED_MODEL, f"{REPORT}.json"} and all(f.is_dir() for f in folders)
        if names and not is_export:
            raise ValueError(
                "output_dir must be a new or empty folder, or that of earlier exports. "
                f"{self.path} holds something else"
            )
        reports = sorted(name for name in names if name.startswith(f"{REPORT}."))
        if reports and f"{REPORT}.json" not in names:
            raise ValueError(
                "output_dir must be a folder in which no report of another make is replaced. "
                f"{self.path} holds something else: {', '.join(reports)} and no {REPORT}.json"
            )
        found = [path.name for folder in folders for path in folder.iterdir()]
        return {int(name) for name in found if re.fullmatch(r"\d+", name)}

    def check_same_net(self, info: DatasetInfo) -> None:
        """Raises ValueError where the newest version is of other classes or image sizes.

        A server hands requests to the newest version, whatever they were made for.
        """
        for name in _SAME if (record := self._read_record()) else ():
            was, now = list(getattr(record.data, name)), list(getattr(info, name))
            if was != now:
                raise ValueError(
                    f"All versions in {self.path} must be of one {name}, as they take each "
                    f"other's place. Received: {_short(now)}; the newest there has {_short(was)}. "
                    "Give another --output_dir"
                )

    def name_to_serve(self, wanted: str | None, default: str) -> str:
        """The name under which the versions are served: that of the earlier ones, if there are.

        Args:
            wanted: by the user.
            default: of a first version.

        Raises:
            ValueError: if the user wants another one than that of the earlier versions.
        """
        record = self._read_record()
        served = record.model_name if record else None
        if wanted and served and wanted != served:
            raise ValueError(
                f"model_name must be that of the versions in {self.path}, {served!r}, by which "
                f"{SERVING}/ there knows them. Received: model_name={wanted!r}. Give another "
                "--output_dir"
            )
        return wanted or served or default

    def _read_record(self):
        """The shared part of report.json; None where there is no such file."""
        report = self.path / f"{REPORT}.json"
        if not report.exists():
            return None
        return records.read_json(report, _Record, "the report of an export")

    @contextlib.contextmanager
    def staged(self) -> Iterator[epath.Path]:
        """A context in which to fill a folder of the same layout, which then becomes this one.

        Only if the context is left without an error. It lies beside this folder, and one
        process at a time can have it.

        Raises:
            ValueError: if another process exports there, it cannot be written to, or another
                process has exported the version meanwhile.
        """
        beside = self._real.parent / f".{self._real.name}.unfinished"
        if self._real.is_dir() and os.path.ismount(self._real):
            # What is beside it lies on another disk.
            beside = self._real / ".unfinished"
        # Hidden, so that `remove` gives them no further name, which could outlive a process.
        stage, ready = beside / ".stage", beside / ".ready"
        try:
            with locked(beside, "output_dir"):
                # Both are of a process that was killed.
                remove(stage)
                self._finish(ready)
                self.version = self._choose_version()
                try:
                    stage.mkdir()
                    yield stage
                    flush_tree(stage)
                    self._publish(stage, ready)
                finally:
                    remove(stage)
        finally:
            # One that a killed process had made, which the lock leaves as it was.
            with contextlib.suppress(OSError):
                os.rmdir(beside)

    def _publish(self, stage, ready):
        # Where it is empty; epath's rmdir would delete what another puts there meanwhile.
        with contextlib.suppress(OSError):
            os.rmdir(self._real)
        if not self._real.exists():
            stage.rename(self._real)
            return
        # From here on it is finished by the next process, where this one is killed.
        stage.rename(ready)
        self._finish(ready)

    def _finish(self, ready):
        """Moves a version to the others; again, where a killed process had begun to."""
        # It goes last.
        if (ready / SAVED_MODEL).exists() and any((ready / SAVED_MODEL).iterdir()):
            self._merge(ready)
        remove(ready)

    def _merge(self, ready):
        # The one by which the folder is known as that of exports goes first.
        reports = [path for path in ready.iterdir() if path.name.startswith(f"{REPORT}.")]
        for path in sorted(reports, key=lambda path: path.suffix != ".json"):
            write_whole(_in_folder(self._real, path.name), path.read_bytes())
        for path in (ready / SERVING).iterdir():
            if not (self._real / SERVING / path.name).exists():
                write_whole(_in_folder(self._real / SERVING, path.name), path.read_bytes())
        for name in filter(lambda name: (ready / name).exists(), _VERSIONED):
            for version in (ready / name).iterdir():
                if not (target := _in_folder(self._real / name, version.name)).exists():
                    version.rename(target)


def _in_folder(folder, name):
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


def _short(value):
    return value if len(value) <= 10 else f"{len(value)} of them"
