"""The file that rows go to: continued where an earlier process was stopped, never overwritten."""

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence

from keras_preact.prediction import rows
from keras_preact.prediction.answers import Prediction
from keras_preact.prediction.rows import Format
from keras_preact.prediction.sources import Files
from keras_preact.support import records
from keras_preact.support.files import write_whole
from keras_preact.support.text import shown
from keras_preact.version import __version__

# Beside the output.
RECORD_SUFFIX = ".json"
_WHAT = "the record of predictions"
_ADVICE = "Nothing is overwritten: give another --output, or move this file away"
# A file system without locks is used unlocked.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


@dataclasses.dataclass(frozen=True)
class Record:
    """What a row depends on, apart from its file; lies beside the output.

    Args:
        model: path of the model, for people.
        model_digest: tells the model from others.
        top_k: classes of each row.
        shard: part of the list.
        keras_preact: version that began the output, for people.
        threshold: least probability of a class.
    """

    model: str
    model_digest: str
    top_k: int
    shard: str | None
    keras_preact: str = __version__
    threshold: float = 0.0


# Fields that may differ when an output is continued.
_FOR_PEOPLE = ("model", "keras_preact")


def check(path: str) -> None:
    """Raises ValueError if no rows can be written to a file, before any work begins."""
    folder = os.path.dirname(path) or os.curdir
    if not os.path.isdir(folder):
        raise ValueError(f"output must lie in a folder that exists. Received: output={shown(path)}")
    if os.path.lexists(path) and not os.path.isfile(path):
        raise ValueError(f"output must be a file. Received: output={shown(path)}, something else")
    writable = path if os.path.exists(path) else folder
    if not os.access(writable, os.W_OK):
        raise ValueError(
            f"output must be a file that can be written to. Received: output={shown(path)}"
        )
    if _holds_something(path) and not os.path.exists(path + RECORD_SUFFIX):
        raise ValueError(
            "output must be new, or the unfinished output of the same command, which "
            f"{path}{RECORD_SUFFIX} would record. Received: output={shown(path)}, which holds "
            f"something else. {_ADVICE}"
        )


@contextlib.contextmanager
def opened(
    path: str,
    record: Record,
    form: Format,
    files: Files,
    part: range,
    seen: Callable[[int, Prediction], None],
) -> Iterator["Output"]:
    """A context with the output of a part of a list, open for the rows that are missing.

    A row that was cut off is removed. If the context ends in the middle of a row, whatever the
    reason, the row is removed.

    Args:
        path: of the file.
        record: of this command.
        form: of the rows.
        files: the list.
        part: the indices whose rows the file shall hold.
        seen: called with the index and the prediction of each row that is there already.

    Raises:
        ValueError: if the file holds other rows, or another process writes to it.
        OSError: if it cannot be written.
    """
    check(path)
    _compare(path, record)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(descriptor, path)
        # Again: another process may have begun the file in between.
        if not os.path.exists(path + RECORD_SUFFIX):
            write_whole(
                path + RECORD_SUFFIX,
                f"{json.dumps(dataclasses.asdict(record), indent=2)}\n".encode(),
            )
        _compare(path, record)
        count, size_bytes = _take_rows(path, form, files, part, seen)
        output = Output(path, descriptor, form, size_bytes, count)
        try:
            yield output
            os.fsync(descriptor)
        finally:
            output.cut()
    finally:
        os.close(descriptor)


class Output:
    """An output open for writing; `opened` makes it.

    Attributes:
        count: its rows so far.
    """

    def __init__(self, path, descriptor, form, size_bytes, count):
        self._path, self._descriptor, self._form = path, descriptor, form
        self._size_bytes, self.count = size_bytes, count
        self.cut()
        if not size_bytes and form.header:
            self._write(form.header)

    def append(self, predictions: Sequence[Prediction]) -> None:
        """Writes rows at once."""
        self._write(b"".join(map(self._form.row, predictions)))
        self.count += len(predictions)

    def cut(self) -> None:
        """Removes all after the last whole row."""
        if os.fstat(self._descriptor).st_size > self._size_bytes:
            os.ftruncate(self._descriptor, self._size_bytes)

    def _write(self, data):
        rest, place = memoryview(data), self._size_bytes
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, place)
                rest, place = rest[written:], place + written
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None
        self._size_bytes = place


def _holds_something(path):
    return os.path.exists(path) and os.path.getsize(path) > 0


def _compare(path, record):
    """Raises ValueError if the record beside the output is of another command."""
    if not os.path.exists(path + RECORD_SUFFIX):
        return
    found = records.read_json(path + RECORD_SUFFIX, Record, _WHAT)
    for field in dataclasses.fields(Record):
        was, now = getattr(found, field.name), getattr(record, field.name)
        if field.name in _FOR_PEOPLE or was == now:
            continue
        if field.name == "model_digest":
            raise ValueError(
                f"{path} holds answers of another model, {shown(found.model)}, or of another "
                f"state of the same. {_ADVICE}"
            )
        raise ValueError(f"{path} was begun with {field.name}={was}, not {now}. {_ADVICE}")


def _lock(descriptor, path):
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"{path} is in use by another process. Wait for it to end") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def _take_rows(path, form, files, part, seen):
    """Checks the rows that are there; returns their number and bytes."""
    size_bytes, count = 0, -bool(form.header)
    with open(path, "rb") as file:
        for row in rows.read(file, form):
            if count < 0:
                if row != form.header:
                    raise ValueError(f"{path} has another header. {_ADVICE}")
            else:
                seen(*_checked(path, form, row, files, part, count))
            size_bytes, count = size_bytes + len(row), count + 1
    return max(count, 0), size_bytes


def _checked(path, form, row, files, part, count):
    try:
        prediction = form.parse(row)
    except ValueError as error:
        raise ValueError(f"Row {count + 1:,} of {path} is damaged ({error}). {_ADVICE}") from None
    if count >= len(part):
        raise ValueError(f"{path} has more rows than there are files, {len(part):,}. {_ADVICE}")
    name = files.names[part[count]]
    if rows.text(prediction.file) != rows.text(name):
        raise ValueError(
            f"Row {count + 1:,} of {path} is of {shown(prediction.file)}, and file {count + 1:,} "
            f"of the source is {shown(name)}: the source has changed. {_ADVICE}"
        )
    return part[count], prediction
