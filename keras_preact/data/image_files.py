"""Image files with labels: checked, divided where they bring no split, and made into sources."""

import dataclasses
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import splitting
from keras_preact.data.augmentation import center_crop_covers
from keras_preact.data.checked import CheckedFiles, examine, relative_names
from keras_preact.data.listing import UNKNOWN, Listing
from keras_preact.data.reading import reason
from keras_preact.data.sources import Encoded, Findings, Loaded, Memory, of_mean_one, spread
from keras_preact.data.splitting import SPLITS, TEST, TRAIN, VAL
from keras_preact.support.text import printable

# Files whose size goes into the digest, at most.
LISTED_SIZES = 10_000

# Examples that a line quotes, at most.
_QUOTED = 3


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The files of a data set with their labels, in the order in which sources hold them.

    Args:
        root: the folder that their paths are told relative to.
        files: with labels.
        splits: numbers of splits, int8 (count,). Where none is `VAL`, those of `TRAIN` are to be
            divided.
        class_names: by label.
        what: names the data set in messages, by its path.
        kind: of the data set: "folder", or another name for the file that remembers it.
        weights: of the images in the loss, float64 (count,); None where all are alike.
        lines: of the CSV file that names them, int64 (count,); None for a folder.
    """

    root: epath.Path
    files: Listing
    splits: np.ndarray
    class_names: Sequence[str]
    what: str
    kind: str = "folder"
    weights: np.ndarray | None = None
    lines: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)

    def select(self, mask: np.ndarray) -> "ImageFiles":
        """Returns the files for which mask, boolean (count,), is true."""
        weights = None if self.weights is None else self.weights[mask]
        lines = None if self.lines is None else self.lines[mask]
        files, splits = self.files.select(mask), self.splits[mask]
        return dataclasses.replace(self, files=files, splits=splits, weights=weights, lines=lines)

    @property
    def labels(self) -> np.ndarray:
        return self.files.labels

    def where(self, index: int) -> str:
        """Names a file, by its path and the line that names it."""
        line = "" if self.lines is None else f"line {self.lines[index]}: "
        return f"{line}{printable(self.files.paths[index])}"

    def label_texts(self) -> list[str]:
        """The names of each image's classes, joined by "|"."""
        names = self.class_names
        if self.labels.ndim == 1:
            return [names[number] for number in self.labels.tolist()]
        return ["|".join(names[n] for n in np.flatnonzero(row)) for row in self.labels]


def load(
    images: ImageFiles,
    image_size: int,
    skip_bad_images: bool,
    split: Sequence[int] | None,
    check: Callable[[ImageFiles], None] = lambda images: None,
) -> Loaded:
    """Checks image files, divides them where they bring no split, and makes sources of them.

    Says in a line each how images were divided, which classes have no training image, and which
    images are copies of others.

    Args:
        images: the files.
        image_size: height and width to which images are brought, in pixels.
        skip_bad_images: whether to leave out files that cannot be decoded, and list them.
        split: percentages of the splits; see `percentages`.
        check: raises ValueError if the files left are too few.

    Raises:
        ValueError: if files cannot be decoded, with a list of all; if split contradicts the
            splits that the files bring; or if there is no image to train or to evaluate on.
    """
    parts = percentages(set(images.splits.tolist()), split, images.what)
    check(images)
    checked = CheckedFiles(images.root, images.files, image_size, images.kind)
    problems = checked.problems()
    is_good = _good(images, problems, skip_bad_images)
    found = tuple((images.files.paths[index], why) for index, why in problems.items())
    images, fingerprints = images.select(is_good), checked.fingerprints()[is_good]
    check(images)
    if parts:
        is_open = images.splits == TRAIN
        images.splits[is_open] = splitting.divide(fingerprints[is_open], parts)
        if split is None:
            print(_told(images, parts))
    _check_splits(images, parts)
    duplicates = _duplicates(images, fingerprints)
    _report(images, duplicates, divided=bool(parts))
    groups = tuple(tuple(images.files.paths[index] for index in group) for group in duplicates)
    train, evaluation, test = (images.select(images.splits == n) for n in (TRAIN, VAL, TEST))
    memory = Memory(
        checked.moments(train.files), lambda moments: checked.keep_moments(train.files, moments)
    )
    return Loaded(
        _source(train, image_size, memory),
        _source(dataclasses.replace(evaluation, weights=None), image_size),
        images.class_names,
        _source(dataclasses.replace(test, weights=None), image_size) if len(test) else None,
        Findings(found, groups),
        _division(images) if parts else None,
    )


def percentages(
    brought: Collection[int], split: Sequence[int] | None, what: str
) -> tuple[int, ...] | None:
    """Returns the percentages that divide the training images; None where nothing is to divide.

    Args:
        brought: numbers of the splits that a data set brings.
        split: percentages wanted; by default 80, 10 and 10, or 90 and 10 beside images for test.
        what: names the data set.

    Raises:
        ValueError: if split breaks its rule, or divides what the data set has divided.
    """
    if split is not None:
        splitting.check(split)
    if VAL in brought:
        if split is None:
            return None
        raise ValueError(
            f"split is for images that bring none, and {what} has images for training and for "
            f"validation already: leave split out. Received: split={splitting.shown(split)}"
        )
    if TEST not in brought:
        return tuple(split or splitting.DEFAULT)
    if split and sum(split[2:]):
        raise ValueError(
            f"split must be two percentages, for training and validation, as in 90,10, as {what} "
            f"has images for test already. Received: split={splitting.shown(split)}"
        )
    return tuple(split or splitting.DEFAULT_BESIDE_TEST)


def _told(images, parts):
    names = ("training", "validation", "test")
    counts = np.bincount(images.splits, minlength=len(names))
    shares = ", ".join(f"{part} % for {name}" for part, name in zip(parts, names, strict=False))
    shares += ", test as it is" * (len(parts) == 2 and bool(counts[TEST]))
    return (
        f"{images.what} brings no images for validation, and is divided by the contents of the "
        f"files: {shares} ({', '.join(f'{count:,}' for count in counts)} images). Choose other "
        "percentages with --split, or --divide of evaluate."
    )


def _good(images, problems, skip):
    """The mask of good files; prints the bad ones, or raises ValueError unless told to skip."""
    is_good = np.ones(len(images), bool)
    if not problems:
        return is_good
    listing = "\n".join(f"  {images.where(index)}: {why}" for index, why in problems.items())
    count = f"{len(problems)} of {len(images)} files"
    count += "" if images.lines is None else f" that {images.what} names"
    if not skip:
        raise ValueError(
            f"{count} cannot be decoded as JPEG, PNG, GIF or BMP. "
            f"Remove them, or leave them out with --skip_bad_images:\n{listing}"
        )
    print(f"Left out {count} that cannot be decoded:\n{listing}")
    is_good[list(problems)] = False
    return is_good


def _check_splits(images, parts):
    for number, purpose in ((TRAIN, "to learn from"), (VAL, "to evaluate on")):
        if not (images.splits == number).any():
            advice = (
                f"Of {len(images)} files, --split={splitting.shown(parts)} leaves none there: give "
                "other percentages, or more images."
                if parts
                else f"None of {len(images)} files is for {SPLITS[number]}."
            )
            raise ValueError(f"{images.what} must have images {purpose}. {advice}")
    train = images.labels[images.splits == TRAIN]
    classes = len(images.class_names)
    counts = train.sum(axis=0) if train.ndim == 2 else np.bincount(train, minlength=classes)
    if len(missing := np.flatnonzero(counts == 0)):
        names = _some([images.class_names[number] for number in missing], most=10)
        print(
            f"Without a training image, {len(missing)} of {classes} classes of {images.what} "
            f"cannot be learned: {names}"
        )


def _duplicates(images, fingerprints):
    """Groups of indices of files with the same contents, in order."""
    order = np.lexsort((images.files.sizes, fingerprints))
    keys = np.stack([fingerprints[order], images.files.sizes[order]])
    is_new = np.append(True, (keys[:, 1:] != keys[:, :-1]).any(axis=0))
    begins = np.flatnonzero(is_new)
    ends = np.append(begins[1:], len(order))
    # The sort is stable: the indices of a group ascend.
    groups = [order[begins[n] : ends[n]] for n in np.flatnonzero(ends - begins > 1)]
    return sorted(groups, key=lambda group: group[0])


def _report(images, duplicates, divided):
    """Prints a line for copies that a reader should know of."""

    def differing(values):
        return [group for group in duplicates if (values[group] != values[group[0]]).any()]

    across, labels = differing(images.splits), differing(images.labels)
    if across:
        print(
            f"Found {_count(across)} of {images.what} in more than one split, such as "
            f"{_examples(images, across)}: the evaluation then counts what training has seen."
        )
    elif divided and duplicates:
        print(
            f"Found {_count(duplicates)} of {images.what} with exact copies, such as "
            f"{_examples(images, duplicates)}: all copies of an image are in one split."
        )
    if labels:
        print(
            f"Found {_count(labels)} of {images.what} with copies of another label, such as "
            f"{_examples(images, labels)}"
        )


def _count(groups):
    return "1 image" if len(groups) == 1 else f"{len(groups):,} images"


def _examples(images, groups):
    def text(group):
        paths = [images.files.paths[index] for index in group[:_QUOTED]]
        return " = ".join(map(printable, relative_names(images.root, paths)))

    return _some([text(group) for group in groups], _QUOTED)


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def _division(images):
    names = relative_names(images.root, images.files.paths)
    return splitting.Division(names, images.splits, images.label_texts())


def _source(images, image_size, memory=None):
    files, covered = images.files, center_crop_covers(image_size)
    with tf.device("CPU"):
        paths, labels = tf.constant(files.paths), tf.constant(files.labels)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    def problem(index):
        path = files.paths[index]
        why, _ = examine(path, covered)
        return f"{printable(path)}: {why}" if why else None

    def listing():
        rows = zip(_texts(files.labels), files.paths, strict=True)
        names = "".join(f"{label} {os.path.basename(path)}\n" for label, path in rows)
        with ThreadPoolExecutor() as pool:
            some = spread(len(files), LISTED_SIZES)
            sizes = list(pool.map(lambda index: _size(files, index), some))
        return f"{names}{sizes}".encode(errors="surrogateescape")

    return Encoded(
        read,
        len(files),
        image_size,
        problem,
        files.paths.__getitem__,
        listing,
        memory or Memory(),
        labels=files.labels,
        weights=None if images.weights is None else _checked_weights(images),
    )


def _texts(labels: np.ndarray) -> Iterable[str]:
    """Labels as text, as a listing has them."""
    if labels.ndim == 1:
        return map(str, labels.tolist())
    return ("|".join(map(str, np.flatnonzero(row))) for row in labels)


def _checked_weights(images):
    if not images.weights.any():
        raise ValueError(
            "The weights of training images must not all be 0. Received: 0 for each of the "
            f"{len(images)} training images of {images.what}"
        )
    return of_mean_one(images.weights)


def _size(files, index):
    if files.sizes[index] != UNKNOWN:
        return int(files.sizes[index])
    path = files.paths[index]
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.OpError as error:
        raise ValueError(
            f"Every image must be readable. Received: {path}: {reason(error)}"
        ) from error
