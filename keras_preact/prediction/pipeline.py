"""Image files as batches of pixels, decoded in parallel exactly as evaluation decodes them."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import gif, limits
from keras_preact.data.augmentation import fit
from keras_preact.data.checked import why_unopened
from keras_preact.data.listing import is_local
from keras_preact.data.reading import image_problem, one_line, reason
from keras_preact.layers import Preprocessing
from keras_preact.prediction.sources import Files
from keras_preact.support.machine import cores
from keras_preact.support.text import printable

# Files read by one call of Python, and calls at a time: few, as photographs are large.
_READ_FILES, _READS = 8, 4
_DAMAGED = "not an image, or damaged ({})"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Consecutive files of a list.

    Args:
        own: their indices.
        images: uint8 (batch, height, width, channels); black where there is no image. It may
            hold more images than files: those of other shards, all black.
        first: index of the file whose place is the first of `images`.
        problems: why a file is no image, by its index.
    """

    own: range
    images: np.ndarray
    first: int
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
    if not part:
        return
    received = _Received(iter(_decoded(files, part, preprocessing).batch(batch_size).prefetch(2)))
    for first in range(part.start // batch_size * batch_size, part.stop, batch_size):
        size = min(batch_size, len(files) - first)
        own = range(max(first, part.start), min(first + size, part.stop))
        images = np.zeros((size, *preprocessing.image_shape), np.uint8)
        problems, missing = {}, np.zeros(size, bool)
        missing[own.start - first : own.stop - first] = True
        for indices, pixels, whys in received.before(own.stop):
            images[indices - first], missing[indices - first] = pixels, False
            problems |= {
                int(index): why.decode() for index, why in zip(indices, whys, strict=True) if why
            }
        for place in np.flatnonzero(missing):
            index = first + int(place)
            images[place], why = _decode_alone(files.path(index), preprocessing)
            problems |= {index: why} if why else {}
        yield Batch(own, images, first, problems)


class _Received:
    """Pieces (indices, images, problems) of a stream in ascending order, cut at any index."""

    def __init__(self, stream):
        self._stream, self._rest = stream, None

    def before(self, stop):
        """Yields what is left before an index."""
        while True:
            if self._rest is None:
                if (piece := next(self._stream, None)) is None:
                    return
                self._rest = [part.numpy() for part in piece]
            count = int(np.searchsorted(self._rest[0], stop))
            piece, rest = zip(*((part[:count], part[count:]) for part in self._rest), strict=True)
            self._rest = rest if len(rest[0]) else None
            if count:
                yield piece
            if self._rest is not None or (count and piece[0][-1] == stop - 1):
                return


def _decoded(files, part, preprocessing) -> tf.data.Dataset:
    """(index, image, problem) of each file; those that fail while they are decoded are missing."""
    shape, decode = preprocessing.image_shape, _decoder(preprocessing)

    def read(indices):
        found = [_contents(files.path(int(index))) for index in indices]
        data, whys = zip(*found, strict=True)
        return np.array(data, object), np.array([why.encode() for why in whys], object)

    def read_some(indices):
        data, whys = tf.numpy_function(read, [indices], [tf.string, tf.string])
        return indices, tf.ensure_shape(data, [None]), tf.ensure_shape(whys, [None])

    def decode_one(index, data, why):
        why = tf.cond(tf.equal(why, ""), lambda: _limit(data, preprocessing), lambda: why)
        black = tf.zeros(shape, tf.uint8)
        return index, tf.cond(tf.equal(why, ""), lambda: decode(data), lambda: black), why

    # Threads of its own: decoding then never waits behind the operations of a batch.
    options = tf.data.Options()
    options.threading.private_threadpool_size = cores()
    return (
        tf.data.Dataset.range(part.start, part.stop)
        .batch(_READ_FILES)
        .map(read_some, num_parallel_calls=_READS, deterministic=True)
        .unbatch()
        .map(decode_one, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .ignore_errors()
        .with_options(options)
    )


def _decoder(preprocessing):
    shape, ratio = preprocessing.image_shape, preprocessing.resize_ratio
    return lambda data: fit(data, shape, ratio, preprocessing.interpolation)


def _limit(data, preprocessing):
    return limits.problem(data, _covered(preprocessing))


def _covered(preprocessing):
    return limits.covered_sides(preprocessing.image_shape, preprocessing.resize_ratio)


def _contents(path) -> tuple[bytes, str]:
    """The bytes of a file, and why it cannot be used as an image, as far as they tell."""
    # Python, as TensorFlow would wait for a pipe, and decode all frames of an animation.
    try:
        if is_local(path):
            if why := why_unopened(path):
                return b"", why
            with open(path, "rb") as file:
                data = file.read()
        else:
            data = epath.Path(path).read_bytes()
    except (OSError, tf.errors.OpError) as error:
        return b"", printable(reason(error))
    except (KeyError, ValueError) as error:
        return b"", f"no such storage, or no path ({printable(one_line(error))})"
    if not data:
        return b"", "empty file"
    if data.startswith(b"GIF") and (why := gif.problem(data)):
        return b"", why
    return data, ""


def _decode_alone(path, preprocessing):
    """The image of a file that failed in the stream, or black, and why it cannot be used."""
    data, why = _contents(path)
    try:
        why = why or image_problem(tf.constant(data), _covered(preprocessing))
        if not why:
            return _decoder(preprocessing)(tf.constant(data)).numpy(), ""
    except tf.errors.ResourceExhaustedError:
        raise
    except tf.errors.OpError as error:
        why = _DAMAGED.format(printable(one_line(error)))
    return np.zeros(preprocessing.image_shape, np.uint8), printable(why)
