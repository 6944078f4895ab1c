"""Checks of files, folders, images and names of classes, and why one fails, in words."""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits
from keras_preact.support.text import is_printable, shown

# Names of classes that an error quotes.
_MOST_QUOTED = 5

# Files that `decodable` hands on at a time.
_BATCH = 64
_GIF = b"GIF"
_MOST_BUCKETS = 2**63 - 1

_ABSENT = "no such file or folder, or a link to none"
_REASONS = {
    FileNotFoundError: _ABSENT,
    tf.errors.NotFoundError: _ABSENT,
    NotADirectoryError: "not a folder",
    PermissionError: "permission denied",
    tf.errors.PermissionDeniedError: "permission denied",
}


def reason(error: OSError | tf.errors.OpError) -> str:
    """Why a file or a folder could not be read, in one line without its path."""
    for kind, words in _REASONS.items():
        if isinstance(error, kind):
            return words
    return getattr(error, "strerror", None) or one_line(error)


def one_line(error: Exception) -> str:
    """An error's message in one line, without TensorFlow's graph."""
    message = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error), flags=re.DOTALL)
    first, _, rest = message.strip().partition("\n")
    if first != "Graph execution error:":
        return first
    # The reason stands between the operation's place in the code and its name.
    lines = [line.strip() for line in rest.splitlines()]
    return [first, *(line for line in lines if line and not line.startswith("[["))][-1]


def list_folder(folder: epath.Path, rule: str) -> list[epath.Path]:
    """The paths in a folder, sorted, without names that begin with a dot.

    Args:
        folder: on a disk or in a bucket.
        rule: that the folder must keep, for the error.

    Raises:
        ValueError: if it is no folder or cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{rule} Received: {folder}: {reason(error)}") from error


def check_class_names(names: Iterable[str], place: str) -> None:
    """Raises ValueError for names that are no single line of text.

    They become lines of files and labels of pictures.

    Args:
        names: of the classes.
        place: where they were found.
    """
    bad = [name for name in names if not (name.strip() and is_printable(name))]
    if bad:
        quoted = ", ".join(map(shown, bad[:_MOST_QUOTED])) + ", ..." * (len(bad) > _MOST_QUOTED)
        raise ValueError(
            "The name of a class must be a line of UTF-8 without control characters, and not "
            f"blank. Received, in {place}: {quoted}"
        )


def image_problem(encoded: tf.Tensor, covered: tuple[int, int] = (1, 1)) -> str | None:
    """Why a file cannot be used as an image, or None. Decodes it if `limits.problem` allows it.

    Args:
        encoded: the bytes of the file, a scalar string.
        covered: height and width in pixels that the image is resized to cover.

    Raises:
        tf.errors.OpError: if decoding fails for a reason that is not in the file.
    """
    data = encoded.numpy()
    if not data:
        return "empty file"
    try:
        if why := _limit(covered)(encoded).numpy().decode():
            return why
        if data.startswith(_GIF) and (why := gif.problem(data)):
            return why
        _decode_roughly(encoded)
    except tf.errors.InvalidArgumentError as error:
        return f"not an image, or damaged ({reason(error)})"
    return None


def decodable(
    paths: Sequence[str], covered: tuple[int, int]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Finds the files that `image_problem` has nothing against, many times as fast, in one read.

    GIF files are never among them: only `image_problem` looks at their frames.

    Args:
        paths: of regular files, in UTF-8.
        covered: as for `image_problem`.

    Yields:
        Indices of such files, in any order, and their fingerprints: int64 (any,) both.
    """
    if not paths:
        return
    check = _check(covered)
    files = tf.data.Dataset.from_tensor_slices((np.arange(len(paths)), list(paths)))

    def look(index, path):
        encoded = tf.io.read_file(path)
        return index, fingerprint(encoded), check(encoded)

    checked = files.map(look, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    # An error drops its file; whoever asks looks at it alone, for the reason.
    good = checked.ignore_errors().filter(lambda *found: found[-1])
    yield from good.map(lambda *found: found[:-1]).batch(_BATCH).as_numpy_iterator()


def fingerprint(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the 64-bit FarmHash of a file's bytes modulo 2^63 - 1, a scalar int64.

    TensorFlow promises that it will never change.
    """
    return tf.strings.to_hash_bucket_fast(encoded, _MOST_BUCKETS)


@functools.cache
def _limit(covered):
    """`limits.problem` as a graph, which is faster than one operation after another."""
    return _graph(lambda encoded: limits.problem(encoded, covered))


@functools.cache
def _check(covered):
    """Whether a file keeps the limits, once it has been decoded; false for a GIF."""

    def check(encoded):
        is_good = tf.equal(limits.problem(encoded, covered), "")
        is_good &= tf.not_equal(tf.strings.substr(encoded, 0, len(_GIF)), _GIF)
        return tf.cond(is_good, lambda: tf.size(_decode_roughly(encoded)) > 0, lambda: False)

    return _graph(check)


def _decode_roughly(encoded):
    """Decodes all of a file; a JPEG at an eighth of its size, in a fraction of the time."""
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3, ratio=8),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )


def _graph(function):
    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def graph(encoded):
        with tf.device("CPU"):
            return function(encoded)

    return graph.get_concrete_function()
