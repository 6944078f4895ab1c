"""Why a file, a folder or an image cannot be read, in words."""

import functools
import re

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits

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
    """What an error says, in one line without TensorFlow's graph."""
    message = re.sub(r"\{\{.*?\}\}\s*|\s*\[Op:.*", "", str(error), flags=re.DOTALL)
    first, _, rest = message.strip().partition("\n")
    if first != "Graph execution error:":
        return first
    # The reason comes behind where the operation was defined, and before which it is.
    lines = [line.strip() for line in rest.splitlines()]
    return [first, *(line for line in lines if line and not line.startswith("[["))][-1]


def list_folder(folder: epath.Path, rule: str) -> list[epath.Path]:
    """What is in a folder, sorted, but for names that begin with a dot.

    Args:
        folder: where to look.
        rule: what the folder should be, for the error.

    Raises:
        ValueError: if it is no folder or cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{rule} Received: {folder}: {reason(error)}") from error


def image_problem(encoded: tf.Tensor, covered: tuple[int, int] = (1, 1)) -> str | None:
    """Why a file is no image that can be learned from, or None. Decodes what may be decoded.

    Args:
        encoded: the bytes of the file, a scalar string.
        covered: height and width in pixels that the image is brought to cover.
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
            # An eighth of the size: reads all of the file, in a fraction of the time.
            tf.io.decode_jpeg(encoded, channels=3, ratio=8)
        else:
            tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError as error:
        return f"not an image, or damaged ({reason(error)})"
    except tf.errors.OpError as error:
        return reason(error)
    if data[:2] == b"BM" and _has_coloured_palette(data):
        return "BMP with a palette of colours, which TensorFlow takes for shades of grey"
    return None


@functools.cache
def _limit(covered):
    """`limits.problem` as a graph, which is faster than one operation after another."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def graph(encoded):
        with tf.device("CPU"):
            return limits.problem(encoded, covered)

    return graph.get_concrete_function()


def _has_coloured_palette(bmp):
    pixels_begin, header_bytes, bits_per_pixel = (
        int.from_bytes(bmp[begin:end], "little") for begin, end in ((10, 14), (14, 18), (28, 30))
    )
    # Blue, green, red and a byte of nothing for each of up to 256 colours.
    palette = np.frombuffer(bmp[14 + header_bytes : pixels_begin], np.uint8)
    colours = palette[: len(palette) // 4 * 4].reshape(-1, 4)[:, :3]
    return bits_per_pixel == 8 and (colours != np.arange(len(colours))[:, None]).any()
