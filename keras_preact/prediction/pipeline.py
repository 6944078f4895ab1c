"""Image files as batches of pixels, decoded in parallel exactly as evaluation decodes them."""

import collections
import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits
from keras_preact.data.augmentation import cover, decode, fit
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


class NoImageError(Exception):
    """A file cannot be used as an image; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Reader:
    """Turns the bytes of a file into pixels.

    Args:
        shape: of the pixels of a file.
        read: returns them, uint8; many threads may call it. Raises NoImageError.
    """

    shape: tuple[int, ...]
    read: Callable[[bytes], np.ndarray]


def batches(
    count: int,
    part: range,
    batch_size: int,
    reader: Reader,
    contents: Callable[[int], bytes],
) -> Iterator[Batch]:
    """Yields a part of a list in batches.

    Every file has its fixed place in a batch, whatever the part: an image then meets the same
    arithmetic, and has the same probabilities to the last bit, in each division of the list.

    Args:
        count: of all files in the list.
        part: the indices to yield, consecutive.
        batch_size: images in a batch; the last one of the list may have fewer.
        reader: of the files.
        contents: returns the bytes of a file by its index, in any thread. Raises NoImageError.
    """
    pool = ThreadPoolExecutor(max(cores(), _LEAST_THREADS))
    begun = collections.deque()
    try:
        for batch in _empty(part, count, batch_size, reader) if part else ():
            starts = range(batch.own.start, batch.own.stop, _FILES)
            pieces = (batch.own[start - batch.own.start :][:_FILES] for start in starts)
            begun.append((batch, [pool.submit(_fill, batch, p, reader, contents) for p in pieces]))
            if len(begun) > _AHEAD:
                yield _finished(*begun.popleft())
        while begun:
            yield _finished(*begun.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _empty(part, count, batch_size, reader):
    for first in range(part.start // batch_size * batch_size, part.stop, batch_size):
        size = min(batch_size, count - first)
        own = range(max(first, part.start), min(first + size, part.stop))
        yield Batch(own, first, np.zeros((size, *reader.shape), np.uint8), {})


def _fill(batch, indices, reader, contents):
    for index in indices:
        try:
            batch.images[index - batch.first] = reader.read(contents(index))
        except NoImageError as error:
            batch.problems[index] = printable(str(error))


def _finished(batch, futures):
    for future in futures:
        future.result()
    return batch


def center_crop(preprocessing: Preprocessing) -> Reader:
    """Returns a reader of images (height, width, channels), as evaluation crops them."""
    shape = preprocessing.image_shape
    covered = limits.covered_sides(shape, preprocessing.resize_ratio)
    # The size of images that are neither resized nor cropped, and may be of any kind.
    as_it_is = shape[:2] == covered and shape[0] * shape[1] <= limits.MAX_IMAGE_PIXELS

    def plain(data):
        is_plain = as_it_is and limits.plain_sides(data) == covered
        return decode(data, shape[-1]) if is_plain else None

    return Reader(shape, _reading(preprocessing, fit, plain))


def ten_crops(preprocessing: Preprocessing) -> Reader:
    """Returns a reader of ten crops of each image, (10, height, width, channels).

    They are the four corners, upper left, upper right, lower left and lower right, the centre,
    and their mirror images. Source: Krizhevsky et al., "ImageNet Classification with Deep
    Convolutional Neural Networks" (2012), section 4.1.
    """
    height, width, channels = preprocessing.image_shape

    def crop(*arguments):
        image = cover(*arguments)
        rest = tf.shape(image)[:2] - [height, width]
        corners = [(0, 0), (0, rest[1]), (rest[0], 0), (rest[0], rest[1])]
        places = [*corners, (rest[0] // 2, rest[1] // 2)]
        crops = tf.stack([image[top : top + height, left : left + width] for top, left in places])
        crops = tf.concat([crops, tf.reverse(crops, [2])], axis=0)
        return tf.ensure_shape(crops, [10, height, width, channels])

    return Reader((10, height, width, channels), _reading(preprocessing, crop))


def _reading(preprocessing, prepare, plain=lambda data: None) -> Callable[[bytes], np.ndarray]:
    """Returns a function from a file's bytes to its pixels, which many threads may call."""
    shape, ratio = preprocessing.image_shape, preprocessing.resize_ratio
    covered = limits.covered_sides(shape, ratio)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def prepared(data):
        with tf.device("CPU"):
            admitted = limits.admitted(data, covered)
            return prepare(admitted, shape, ratio, preprocessing.interpolation)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def problem(data):
        with tf.device("CPU"):
            return limits.problem(data, covered)

    def read(data):
        if not data:
            raise NoImageError("empty file")
        if data.startswith(b"GIF") and (why := gif.problem(data)):
            raise NoImageError(why)
        try:
            image = plain(data)
            return (prepared(data) if image is None else image).numpy()
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            raise NoImageError(_why(problem, data, error)) from None

    return read


def _why(problem, data, error):
    try:
        if why := problem(data).numpy().decode():
            return why
    except tf.errors.OpError:  # a JPEG without a size
        pass
    return f"not an image, or damaged ({one_line(error)})"


def contents_of(files: Files) -> Callable[[int], bytes]:
    """Returns a function that reads a file of a list by its index."""
    return lambda index: _contents(files.path(index))


def _contents(path):
    # By Python: TensorFlow would wait for a pipe, and decode all frames of an animation.
    try:
        if is_local(path):
            if why := why_unopened(path):
                raise NoImageError(why)
            with open(path, "rb") as file:
                return file.read()
        return epath.Path(path).read_bytes()
    except (OSError, tf.errors.OpError) as error:
        raise NoImageError(reason(error)) from None
    except (KeyError, ValueError) as error:
        raise NoImageError(f"no such storage, or no path ({one_line(error)})") from None
