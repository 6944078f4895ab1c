"""Image files as batches of pixels, decoded in parallel exactly as evaluation decodes them."""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits
from keras_preact.data.augmentation import decode, fit
from keras_preact.data.checked import why_unopened
from keras_preact.data.listing import is_local
from keras_preact.data.reading import one_line, reason
from keras_preact.layers import Preprocessing
from keras_preact.prediction.sources import Files
from keras_preact.support.machine import cores
from keras_preact.support.text import printable

# Batches that are read while the one before them is computed.
_AHEAD = 2
# Files that a thread reads at a time.
_FILES = 8
# At least: each question to a file server takes a while.
_LEAST_THREADS = 4


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive files of a list.

    Args:
        own: their indices.
        first: index of the file whose place is the first of `images`.
        images: uint8 (batch, height, width, channels); black where there is no image. It may
            hold more images than files: those of other shards, all black.
        problems: why a file is no image, by its index.
    """

    own: range
    first: int
    images: np.ndarray
    problems: dict[int, str]


def batches(
    files: Files, part: range, batch_size: int, preprocessing: Preprocessing
) -> Iterator[Batch]:
    """Yields a part of a list in batches.

    Every file has its fixed place in a batch, whatever the part: an image then meets the same
    arithmetic, and has the same probabilities to the last bit, in each division of the list.

    Args:
        files: the whole list.
        part: the indices to yield, consecutive.
        batch_size: images in a batch; the last one of the list may have fewer.
        preprocessing: gives the size of the images, and how they are resized.
    """
    read = _reader(preprocessing)
    pool = ThreadPoolExecutor(max(cores(), _LEAST_THREADS))
    begun = collections.deque()
    try:
        for batch in _empty(part, len(files), batch_size, preprocessing) if part else ():
            starts = range(batch.own.start, batch.own.stop, _FILES)
            pieces = (batch.own[start - batch.own.start :][:_FILES] for start in starts)
            begun.append((batch, [pool.submit(_fill, batch, p, files, read) for p in pieces]))
            if len(begun) > _AHEAD:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _empty(part, count, batch_size, preprocessing):
    for first in range(part.start // batch_size * batch_size, part.stop, batch_size):
        size = min(batch_size, count - first)
        own = range(max(first, part.start), min(first + size, part.stop))
        yield Batch(own, first, np.zeros((size, *preprocessing.image_shape), np.uint8), {})


def _fill(batch, indices, files, read):
    for index in indices:
        try:
            batch.images[index - batch.first] = read(files.path(index))
        except _NoImageError as error:
            batch.problems[index] = printable(str(error))


def _finished(batch, futures):
    for future in futures:
        future.result()
    return batch


class _NoImageError(Exception):
    """A file cannot be used as an image; the message is the reason."""


def _reader(preprocessing) -> Callable[[str], np.ndarray]:
    """Returns a function from a path to its image, which many threads may call."""
    shape, ratio = preprocessing.image_shape, preprocessing.resize_ratio
    covered = limits.covered_sides(shape, ratio)
    # The size of images that are neither resized nor cropped, and may be of any kind.
    as_it_is = shape[:2] == covered and shape[0] * shape[1] <= limits.MAX_IMAGE_PIXELS

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def fitted(data):
        with tf.device("CPU"):
            return fit(limits.admitted(data, covered), shape, ratio, preprocessing.interpolation)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def problem(data):
        with tf.device("CPU"):
            return limits.problem(data, covered)

    def read(path):
        data = _contents(path)
        try:
            if as_it_is and limits.plain_sides(data) == covered:
                return decode(data, shape[-1]).numpy()
            return fitted(data).numpy()
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            raise _NoImageError(_why(problem, data, error)) from None

    return read


def _why(problem, data, error):
    try:
        if why := problem(data).numpy().decode():
            return why
    except tf.errors.OpError:  # a JPEG without a size
        pass
    return f"not an image, or damaged ({one_line(error)})"


def _contents(path) -> bytes:
    # By Python: TensorFlow would wait for a pipe, and decode all frames of an animation.
    try:
        if is_local(path):
            if why := why_unopened(path):
                raise _NoImageError(why)
            with open(path, "rb") as file:
                data = file.read()
        else:
            data = epath.Path(path).read_bytes()
    except (OSError, tf.errors.OpError) as error:
        raise _NoImageError(reason(error)) from None
    except (KeyError, ValueError) as error:
        raise _NoImageError(f"no such storage, or no path ({one_line(error)})") from None
    if not data:
        raise _NoImageError("empty file")
    if data.startswith(b"GIF") and (why := gif.problem(data)):
        raise _NoImageError(why)
    return data
