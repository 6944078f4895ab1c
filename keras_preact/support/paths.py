"""Checks the paths that a user gives, before any work begins."""

import functools
import os
import re
import stat
import threading

import tensorflow as tf
from etils import epath

from keras_preact.support.text import is_printable, printable, shown

# TensorFlow takes the name of a checkpoint for a pattern, which may match other folders or none
# (tensorflow/core/util/tensor_slice_reader.cc).
WILDCARDS = "*?[]\\"
# The limits of Linux, less room for names further down.
MOST_BYTES = 4096 - 256
MOST_BYTES_OF_A_NAME = 255
# TensorFlow itself tries for minutes.
ANSWER_SECONDS = 60
# Letters shown of a service's answer.
_MOST_LETTERS = 300

# Programs that mount storages for which tensorflow-io had a plug-in.
_MOUNT = {
    "s3": "mountpoint-s3 or s3fs",
    "az": "blobfuse2",
    "hdfs": "hadoop-hdfs-fuse",
}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]+[a-z0-9]")
_answered: set[str] = set()


def usable(path: epath.PathLike, flag: str, wildcards: bool = False) -> epath.Path:
    """Checks a path that a user gave, and expands `~`.

    Args:
        path: of a file or a folder, on a disk or gs://BUCKET/PATH; it need not exist.
        flag: the flag that gave it.
        wildcards: whether it may hold `* ? [ ] \\`: only if no checkpoint and no SavedModel
            will lie below.

    Raises:
        ValueError: if it is empty, too long, not UTF-8, or has characters that cannot be
            printed; if it, made absolute and with its links resolved, has wildcards; if it is
            in a storage that cannot be used here, or in a bucket that does not answer within
            `ANSWER_SECONDS`.
    """
    given = os.fspath(path)
    refuse = functools.partial(_refuse, flag, given)
    if not given.strip():
        raise refuse("must not be empty")
    _check_text(given, given, refuse)
    if not wildcards:
        _check_wildcards(given, given, refuse)
    _check_storage(given, refuse)
    if "://" in given:
        _check_bucket(given, refuse)
        return epath.Path(given)
    expanded = os.path.expanduser(given)
    if expanded.startswith("~"):
        raise refuse("must not begin with ~NAME where there is no user of that name")
    resolved = _resolve(expanded, refuse)
    _check_text(resolved, given, refuse)
    if not wildcards:
        _check_wildcards(resolved, given, refuse)
    # epath takes /gs/NAME for gs://NAME, and so on.
    if "://" in os.fspath(epath.Path(resolved)):
        raise refuse(
            f"must not lie below /{resolved.split('/')[1]}, which is taken for the bucket "
            f"{epath.Path(resolved)}"
        )
    return epath.Path(expanded)


def is_regular(path: epath.PathLike) -> bool:
    """Whether a path leads to a file with an end.

    epath's `is_file` is true for pipes and devices too, which may never end or never begin.

    Raises:
        OSError: if nothing is there, or it cannot be read.
    """
    if "://" in os.fspath(path):
        return epath.Path(path).is_file()
    return stat.S_ISREG(os.stat(path).st_mode)


def _refuse(flag, given, rule):
    return ValueError(f"{flag} {rule}. Received: {flag}={shown(given)}")


def _check_text(text, given, refuse):
    where = "" if text == given else f", and so must {shown(text)}, where it lies"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refuse(f"must be UTF-8, as TensorFlow can open no other names{where}") from None
    if not is_printable(text):
        raise refuse(f"must have no line breaks or other control characters{where}")


def _check_wildcards(text, given, refuse):
    if found := sorted(set(text) & set(WILDCARDS)):
        where = "" if text == given else f": it lies at {shown(text)}"
        raise refuse(
            f"must not hold {' '.join(found)}, as TensorFlow takes {' '.join(WILDCARDS)} for "
            f"wildcards and finds no checkpoints there, or those of other folders{where}"
        )


def _check_storage(given, refuse):
    rule = "must be a path on this machine, or gs://BUCKET/PATH"
    scheme = _SCHEME.match(given)
    if scheme is None:
        if "://" in given:
            raise refuse(f"{rule}, with :// in no other place")
        return
    name = scheme[1]
    if given.startswith(f"{name}://") and _is_known(name):
        return
    if name == "gs":
        raise refuse(f"{rule}, with two slashes after gs:")
    if name == "file":
        raise refuse(f"{rule}, without file://")
    if name in _MOUNT:
        raise refuse(
            f"{rule}. TensorFlow {tf.__version__} reads {name}:// with no plug-in that can be "
            f"installed: tensorflow-io, which had one, ends at TensorFlow 2.16. Mount it with "
            f"{_MOUNT[name]} and give the folder"
        )
    raise refuse(f"{rule}; a path that begins like an address is neither")


def _is_known(scheme):
    """Whether both TensorFlow and etils can read files of a scheme."""
    try:
        epath.Path(f"{scheme}://a")
    except KeyError:
        return False
    return scheme in tf.io.gfile.get_registered_schemes()


def _resolve(path, refuse):
    """The path made absolute, with its links resolved."""
    longest = max(len(name.encode()) for name in path.split("/"))
    if longest > MOST_BYTES_OF_A_NAME:
        raise refuse(f"must have names of at most {MOST_BYTES_OF_A_NAME} bytes between its slashes")
    try:
        resolved = os.path.realpath(path)
    except FileNotFoundError:
        raise refuse(
            "must be absolute, beginning with /, as the current folder has been deleted"
        ) from None
    if len(os.fsencode(resolved)) > MOST_BYTES:
        raise refuse(f"must have at most {MOST_BYTES:,} bytes, counted from /")
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        pass  # It need not exist; making it says why that is impossible.
    except PermissionError as error:
        raise refuse(f"must be a path that you may follow ({error.strerror})") from None
    except OSError as error:
        raise refuse(f"must be a path that leads somewhere ({error.strerror})") from None
    return resolved


def _check_bucket(given, refuse):
    """Asks a bucket, once, whether it is there."""
    scheme, _, rest = given.partition("://")
    bucket = rest.partition("/")[0]
    if not _BUCKET.fullmatch(bucket):
        raise refuse(f"must name a bucket after {scheme}://, of letters, digits, '.', '_' and '-'")
    if f"{scheme}://{bucket}" in _answered:
        return
    answer = []
    # Nothing stops TensorFlow while it tries; the program must not wait for it.
    thread = threading.Thread(target=lambda: answer.append(_ask(given)), daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    problem = answer[0] if answer else f"no answer within {ANSWER_SECONDS} s"
    if problem is not None:
        raise refuse(
            "must be in a bucket that can be reached: check its name, the network, and the "
            f"credentials, as from gcloud auth application-default login ({problem})"
        )
    _answered.add(f"{scheme}://{bucket}")


def _ask(path):
    """The reason why a bucket cannot be used, or None."""
    try:
        tf.io.gfile.stat(path)
    except tf.errors.NotFoundError as error:
        # The path may be absent in a bucket that is there.
        absent = error.message.startswith("The specified path")
        return None if absent else _one_line(error)
    except tf.errors.OpError as error:
        return _one_line(error)
    return None


def _one_line(error):
    return printable(" ".join(error.message.split()))[:_MOST_LETTERS]
