"""Divides images into training, validation and test by their contents.

An image's split follows from the bytes of its file alone. It therefore stays where it is when
other files come and go, when it is renamed, and when the folder moves; and copies of one image
are always in one split. A hash of the path would part a copy that is added later from its image.
"""

import csv
import dataclasses
import io
from collections.abc import Sequence

import numpy as np

from keras_preact.support.text import printable

# The names of the splits, by their numbers.
SPLITS = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
DEFAULT = (80, 10, 10)
DEFAULT_BESIDE_TEST = (90, 10)

_RULE = (
    "split must be whole percentages of images for training, validation and, if wanted, test, as "
    "in 80,10,10 or 80,20: at least 1 for each of the first two, and 100 together."
)


def check(split: Sequence[int]) -> None:
    """Raises ValueError unless split is two or three percentages; see the rule."""
    is_good = len(split) in (2, 3) and min(split) >= 0 and min(split[:2]) >= 1
    if not is_good or sum(split) != 100:
        raise ValueError(f"{_RULE} Received: split={shown(split)}")


def shown(split: Sequence[int]) -> str:
    """The percentages as the flag takes them: "80,10,10"."""
    return ",".join(map(str, split))


def divide(fingerprints: np.ndarray, split: Sequence[int]) -> np.ndarray:
    """Returns the split of each image: TRAIN, VAL or TEST, int8 (count,).

    A fingerprint counts as a fraction of 2^63. The first percentages of all fractions are for
    training, the next for validation, the last for test: the shares of the splits hold in
    expectation. Images that change their split with the percentages are as few as can be.

    Args:
        fingerprints: of the files' contents, int64 (count,), 0 to 2^63 - 1.
        split: percentages of training, validation and test, or of the first two.

    Raises:
        ValueError: if the percentages break their rule.
    """
    check(split)
    # Exact in whole numbers: fractions in floating point could round across a border.
    borders = [-(-(sum(split[: place + 1]) << 63) // 100) for place in range(len(split) - 1)]
    places = np.searchsorted(
        np.array(borders, np.uint64), fingerprints.astype(np.uint64), side="right"
    )
    return places.astype(np.int8)


def differences(before: bytes, after: bytes, most: int = 10) -> list[tuple[str, str, str]]:
    """Compares two files as `Division.to_csv` returns them.

    Args:
        before: of earlier.
        after: of now; empty where the data set brings its splits.
        most: rows to return, at most; a last one tells how many there are beyond them.

    Returns:
        (path, split before, split now) of images that are not in both, or in another split.
    """
    if before == after:
        return []
    old, new = (_splits_of(data) for data in (before, after))
    found = [
        (printable(path), old.get(path, "absent"), new.get(path, "absent"))
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
    ]
    more = len(found) - most
    return found[:most] + [(f"and {more:,} more", "", "")] * (more > 0)


def _splits_of(data):
    rows = csv.reader(io.StringIO(data.decode(errors="surrogateescape"), newline=""))
    next(rows, None)
    return {row[0]: row[1] for row in rows if len(row) > 1}


@dataclasses.dataclass(frozen=True)
class Division:
    """The split of each image of a data set that percentages divide.

    Args:
        paths: of the files, relative to the data set's folder.
        splits: numbers of splits, int8 (count,).
        labels: names of classes, joined by "|" where an image has several.
    """

    paths: Sequence[str]
    splits: np.ndarray
    labels: Sequence[str]

    def to_csv(self) -> bytes:
        """Returns a CSV file of path, split and label, which `--dataset=csv` can read."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("path", "split", "label"))
        names = (SPLITS[number] for number in self.splits)
        writer.writerows(sorted(zip(self.paths, names, self.labels, strict=True)))
        return text.getvalue().encode(errors="surrogateescape")
