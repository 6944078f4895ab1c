"""The folder of an export: built under another name, and renamed once it is complete."""

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

SAVED_MODEL, TFLITE, WEIGHTS = "saved_model", "tflite", "weights"
REPORTS, SERVING = "reports", "serving"
REPORT = "report"
# The SavedModel is moved last, as servers look for it.
_VERSIONED = (TFLITE, WEIGHTS, REPORTS, SAVED_MODEL)
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


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of one version's files in a folder of exports.

    | path | |
    |---|---|
    | saved_model/VERSION/ | for TensorFlow Serving, whose base path is saved_model |
    | tflite/VERSION/ | KIND.tflite |
    | weights/VERSION/ | model.keras, model.safetensors |
    | reports/VERSION/ | report.md, report.json, report.png |
    | report.* | copies of the newest version's |
    | serving/ | configuration and client; a file that exists is never replaced |

    Args:
        root: the folder of exports, or the one that is filled in its place.
        version: number of the version.
    """

    root: epath.Path
    version: int

    @property
    def saved_model(self) -> epath.Path:
        return self.root / SAVED_MODEL / str(self.version)

    @property
    def tflite(self) -> epath.Path:
        return self.root / TFLITE / str(self.version)

    @property
    def weights(self) -> epath.Path:
        return self.root / WEIGHTS / str(self.version)

    @property
    def reports(self) -> epath.Path:
        return self.root / REPORTS / str(self.version)

    @property
    def serving(self) -> epath.Path:
        return self.root / SERVING


class ExportFolder:
    """The folder that holds the exports of one network, laid out as in `Layout`.

    Args:
        path: the folder; it need not exist yet.
        version: number of the new version; by default the next free one.

    Raises:
        ValueError: if the folder holds something else or already has the version, or if no
            export can be written there; see `paths.usable`.
    """

    def __init__(self, path: epath.PathLike, version: int | None = None):
        self.path = usable(path, "output_dir")
        # Links to one folder must share one lock and one folder in progress.
        is_local = "://" not in os.fspath(self.path)
        self._real = epath.Path(os.path.realpath(self.path)) if is_local else self.path
        self._wanted = version
        self.version = self._choose_version()

    @property
    def layout(self) -> Layout:
        """The places of the new version's files."""
        return Layout(self.path, self.version)

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
                "output_dir must not hold a report of another program, which an export would "
                f"replace. {self.path} holds something else: {', '.join(reports)} and no "
                f"{REPORT}.json"
            )
        found = [path.name for folder in folders for path in folder.iterdir()]
        return {int(name) for name in found if re.fullmatch(r"\d+", name)}

    def check_same_net(self, info: DatasetInfo) -> None:
        """Raises ValueError if the newest version has other classes or another image size.

        A server passes every request to the newest version, so all versions must take the same.
        """
        for name in _SAME if (record := self._read_record()) else ():
            was, now = list(getattr(record.data, name)), list(getattr(info, name))
            if was != now:
                raise ValueError(
                    f"All versions in {self.path} must have the same {name}, as a server replaces "
                    f"one by the next. Received: {_short(now)}; the newest there has "
                    f"{_short(was)}. Give another --output_dir"
                )

    def name_to_serve(self, wanted: str | None, default: str) -> str:
        """Returns the name on the server: that of the earlier versions, if there are any.

        Args:
            wanted: the user's choice.
            default: for a first version.

        Raises:
            ValueError: if the user's choice differs from the name of the earlier versions.
        """
        record = self._read_record()
        served = record.model_name if record else None
        if wanted and served and wanted != served:
            raise ValueError(
                f"model_name must be that of the versions in {self.path}, {served!r}, which the "
                f"files in {SERVING}/ name. Received: model_name={wanted!r}. Give another "
                "--output_dir"
            )
        return wanted or served or default

    def _read_record(self):
        """Returns the shared part of report.json, or None without such a file."""
        report = self.path / f"{REPORT}.json"
        if not report.exists():
            return None
        return records.read_json(report, _Record, "the report of an export")

    @contextlib.contextmanager
    def staged(self) -> Iterator[epath.Path]:
        """Yields a folder to fill, which becomes this one if the context ends without an error.

        It lies beside this folder, has the same layout, and belongs to one process at a time.

        Raises:
            ValueError: if another process exports there or has meanwhile exported the version, or
                if the folder cannot be written to.
        """
        beside = self._real.parent / f".{self._real.name}.unfinished"
        if self._real.is_dir() and os.path.ismount(self._real):
            # A folder beside a mount point lies on another disk and could not be renamed.
            beside = self._real / ".unfinished"
        # `remove` first renames what is not hidden, and a killed process would leave that name.
        stage, ready = beside / ".stage", beside / ".ready"
        try:
            with locked(beside, "output_dir"):
                # Either exists only if a process was killed.
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
            # The lock deletes the folder only if it made it, and not one of a killed process.
            with contextlib.suppress(OSError):
                os.rmdir(beside)

    def _publish(self, stage, ready):
        # Succeeds only on an empty folder; epath's rmdir would also delete new files in it.
        with contextlib.suppress(OSError):
            os.rmdir(self._real)
        if not self._real.exists():
            stage.rename(self._real)
            return
        # If this process is killed from here on, the next one finishes its work.
        stage.rename(ready)
        self._finish(ready)

    def _finish(self, ready):
        """Moves a version to the others; also completes the move of a killed process."""
        folders = [ready / name for name in _VERSIONED if (ready / name).exists()]
        if any(any(folder.iterdir()) for folder in folders):
            self._merge(ready)
        remove(ready)

    def _merge(self, ready):
        # report.json goes first: it marks the folder as one of exports.
        reports = [path for path in ready.iterdir() if path.name.startswith(f"{REPORT}.")]
        for path in sorted(reports, key=lambda path: path.suffix != ".json"):
            write_whole(_in_folder(self._real, path.name), path.read_bytes())
        serving = ready / SERVING
        for path in serving.iterdir() if serving.exists() else ():
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
