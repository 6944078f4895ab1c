"""Checks of files, folders, images and names of classes, and why one fails, in words."""

import functools
import re
from collections.abc import Iterable

import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits
from keras_preact.support.text import is_printable, shown

# Names of classes that an error quotes.
_MOST_QUOTED = 5

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
    """
    data = encoded.numpy()
    if not data:
        return "empty file"
    try:
        if why := _limit(covered)(encoded).numpy().decode():
            return why
        if data.startswith(b"GIF") and (why := gif.problem(data)):
            return why
        if tf.io.is_jpeg(encoded):
            # At an eighth of the size: still reads the whole file, in a fraction of the time.
            tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        else:
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        return f"not an image, or damaged ({reason(error)})"
    except tf.errors.OpError as error:
        return reason(error)
    return None


@functools.cache
def _limit(covered):
    """`limits.problem` as a graph, which is faster than one operation after another."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def graph(encoded):
        with tf.device("CPU"):
            return limits.problem(encoded, covered)

    return graph.get_concrete_function()
