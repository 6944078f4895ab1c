"""A CSV file that names images and their labels."""

import csv
import difflib
import io
import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import folder, image_files
from keras_preact.data.image_files import ImageFiles
from keras_preact.data.listing import is_local, look_at_files
from keras_preact.data.reading import check_class_names, reason
from keras_preact.data.sources import Loaded
from keras_preact.data.splitting import TEST, TRAIN, VAL
from keras_preact.support import records
from keras_preact.support.paths import usable
from keras_preact.support.text import shown

COLUMNS = ("path", "label", "split", "weight")
NEEDED = COLUMNS[:2]
# Between the labels of an image that has several.
SEPARATOR = "|"

_SPLIT_NAMES = {"train": TRAIN, "val": VAL, "validation": VAL, "test": TEST}
# Lines that an error lists, at most.
_MOST_ERRORS = 20


class Row(NamedTuple):
    """A line of the file, as text.

    Attributes:
        line: its number, counted from 1.
        path: of the image.
        label: names of classes, separated by "|".
        split: "" where the file has no such column.
        weight: likewise.
    """

    line: int
    path: str
    label: str
    split: str
    weight: str


class _Errors:
    """Collects the broken rules of all lines, to raise them together."""

    def __init__(self, path: epath.Path):
        self._path, self._lines = path, []

    def add(self, line: int, rule: str, received: str) -> None:
        self._lines.append((line, f"  line {line}: {rule} Received: {received}"))

    def check(self) -> None:
        """Raises ValueError if there are any."""
        if not self._lines:
            return
        lines = [text for _, text in sorted(self._lines)]
        more = len(lines) - _MOST_ERRORS
        listing = "\n".join(lines[:_MOST_ERRORS]) + f"\n  and {more:,} more" * (more > 0)
        raise ValueError(f"{len(lines):,} lines of {self._path} break a rule:\n{listing}")


def load(
    data_dir: str,
    image_size: int,
    skip_bad_images: bool = False,
    split: Sequence[int] | None = None,
) -> Loaded:
    """Reads the images that a CSV file names.

    The file is UTF-8, with a header of the columns path and label and, if wanted, split and
    weight; other columns are ignored. A relative path begins at the file's folder. A label is
    the name of a class. Where one has a "|" in any line, images are of several classes: labels
    are names separated by "|", an empty one means none of the classes, and labels of the sources
    are float32 (count, classes). A split is train, val, validation or test; without that column,
    or without images for validation, percentages divide the images, as in a folder. A weight is
    a number, at least 0, of a training image in the loss, relative to the others.

    Images are ordered by label and path: the order of the lines changes nothing.

    Args:
        data_dir: path of the file.
        image_size: height and width to which images are brought, in pixels.
        skip_bad_images: whether to leave out files that cannot be decoded, and list them.
        split: percentages of the splits; see `image_files.percentages`.

    Raises:
        ValueError: if the file cannot be read, or lines break a rule; it lists these. Also as
            `image_files.load` does.
    """
    images = _images(data_dir)
    return image_files.load(images, image_size, skip_bad_images, split)


def check(data_dir: str) -> None:
    """Raises ValueError if there is no such file, or its header lacks a column."""
    path = _existing(data_dir)
    try:
        with path.open("rb") as file:
            beginning = file.read(2**16)
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{_rule(path)} Received: {reason(error)}") from error
    # The last line may be cut, also within a letter.
    header = beginning.partition(b"\n")[0].decode("utf-8-sig", errors="replace")
    _columns(next(csv.reader([header]), []), path)


def median_pixels(data_dir: str) -> float | None:
    """Returns the median of height times width over some training images, as in `folder`."""
    images = _images(data_dir)
    return folder.median_of(images.select(images.splits == TRAIN).files.paths)


def read_rows(path: epath.Path) -> list[Row]:
    """Returns the lines of a file; blank ones are left out.

    Raises:
        ValueError: if it cannot be read, is no CSV file in UTF-8, lacks a column, or has a line
            of more or fewer fields than its header.
    """
    errors = _Errors(path)
    lines = _lines(path)
    _, header = next(lines, (1, []))
    columns, rows = _columns(header, path), []
    places = [columns.get(name, -1) for name in COLUMNS]
    for line, fields in lines:
        if len(fields) == len(header):
            rows.append(Row(line, *[fields[at].strip() if at >= 0 else "" for at in places]))
        else:
            rule = f"a line must have {len(header)} fields, as the header has."
            errors.add(line, rule, f"{len(fields)} fields")
    errors.check()
    if not rows:
        raise ValueError(f"{_rule(path)} Received: a header without lines")
    return rows


def _rule(path):
    return f"{path} must be a CSV file with a header of the columns path and label."


def _existing(data_dir):
    path = usable(data_dir, "data_dir", wildcards=True)
    try:
        if path.is_dir():
            raise ValueError(
                f"{_rule(path)} Received: a folder (for which there is --dataset=folder)"
            )
        if not path.exists():
            raise ValueError(f"{_rule(path)} Received: no such file")
    except OSError as error:
        raise ValueError(f"{_rule(path)} Received: {reason(error)}") from error
    records.check_regular(path)
    return path


def _lines(path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, fields) of each record that is not blank."""
    try:
        data = path.read_bytes()
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{_rule(path)} Received: {reason(error)}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        received = f"byte {data[error.start]:#04x} in line {line}"
        raise ValueError(f"{path} must be UTF-8. Received: {received}") from error
    reader, begin = csv.reader(io.StringIO(text, newline=""), strict=True), 1
    try:
        for fields in reader:
            if any(map(str.strip, fields)):
                yield begin, fields
            begin = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path} must be a CSV file. Received: line {begin}: {error}") from error


def _columns(header, path):
    """The places of the columns by name."""
    names = [name.strip().lower() for name in header]
    columns = {name: names.index(name) for name in COLUMNS if name in names}
    received = f"Received: {','.join(header) or 'nothing'}"
    if missing := [name for name in NEEDED if name not in columns]:
        hint = " Fields must be separated by commas." if len(header) == 1 else ""
        raise ValueError(f"{_rule(path)}{hint} Without {' and '.join(missing)}. {received}")
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise ValueError(f"{path} must have the column {twice[0]} once. {received}")
    for name in set(names) - set(COLUMNS):
        # A column of weights that is not read would be found out late.
        if near := difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.8):
            raise ValueError(
                f"{path} has a column {shown(name)}. Did you mean {near[0]}? {received}"
            )
    return columns


def _images(data_dir):
    path = _existing(data_dir)
    rows, errors = read_rows(path), _Errors(path)
    root = path.parent
    paths = _paths(rows, root, errors)
    class_names, labels = _labels(rows, errors)
    splits = _splits(rows, errors)
    weights = _weights(rows, splits, errors)
    errors.check()
    check_class_names(class_names, str(path))
    if labels.ndim == 1 and len(class_names) < 2:
        raise ValueError(f"{path} must have two or more classes. Received: {class_names}")
    if TRAIN not in splits:
        raise ValueError(f"{path} must have images for training. Received: none of split train")
    # By label and path, as in a folder; by path alone where an image has several labels.
    numbers = labels.tolist() if labels.ndim == 1 else [0] * len(rows)
    order = np.array(sorted(range(len(rows)), key=lambda row: (numbers[row], paths[row])))
    return ImageFiles(
        root,
        look_at_files([paths[row] for row in order], labels[order]),
        splits[order],
        class_names,
        str(path),
        kind=f"csv-{path.stem}",
        weights=None if weights is None else weights[order],
        lines=np.array([row.line for row in rows])[order],
    )


def _paths(rows, root, errors):
    """The paths of the images; a relative one begins at root."""
    # As text: a path of epath takes as long as all else.
    root, paths, lines = os.fspath(root), [], {}
    for row in rows:
        if not row.path or "\0" in row.path:
            errors.add(row.line, "path must be that of an image.", shown(row.path))
            continue
        name = os.path.normpath(row.path) if is_local(row.path) else row.path
        if (first := lines.setdefault(name, row.line)) != row.line:
            rule = f"a path must stand in one line, and line {first} has it."
            errors.add(row.line, rule, shown(row.path))
        paths.append(os.path.join(root, name) if is_local(name) else name)
    return paths


def _labels(rows, errors):
    """Class names, sorted, and labels: int32 (count,), or float32 (count, classes)."""
    is_multi = any(SEPARATOR in row.label for row in rows)
    parts = [
        [part.strip() for part in row.label.split(SEPARATOR)] if row.label else [] for row in rows
    ]
    for row, names in zip(rows, parts, strict=True):
        if not names and not is_multi:
            errors.add(
                row.line,
                "label must be the name of a class (an empty one means none of the classes where "
                "a label has a |).",
                shown(row.label),
            )
        elif not all(names) or len(set(names)) < len(names):
            errors.add(
                row.line, "labels must be names of classes, each once, between |.", shown(row.label)
            )
    class_names = sorted({name for names in parts for name in names if name})
    numbers = {name: number for number, name in enumerate(class_names)}
    if not is_multi:
        return class_names, np.array([numbers.get("".join(names), 0) for names in parts], np.int32)
    labels = np.zeros((len(rows), len(class_names)), np.float32)
    for row, names in enumerate(parts):
        labels[row, [numbers[name] for name in names if name]] = 1
    return class_names, labels


def _splits(rows, errors):
    """Numbers of splits, int8 (count,); all of TRAIN where the file tells none."""
    if not any(row.split for row in rows):
        return np.full(len(rows), TRAIN, np.int8)
    found = []
    for row in rows:
        name = row.split.lower()
        found.append(_SPLIT_NAMES.get(name, TRAIN))
        if name not in _SPLIT_NAMES:
            errors.add(row.line, f"split must be {', '.join(_SPLIT_NAMES)}.", shown(row.split))
    return np.array(found, np.int8)


def _weights(rows, splits, errors):
    """Weights, float64 (count,), 0 where an image that is not for training has none; or None."""
    if not any(row.weight for row in rows):
        return None
    found = []
    for row, split in zip(rows, splits, strict=True):
        weight = _number(row.weight if row.weight or split == TRAIN else "0")
        found.append(weight)
        if not 0 <= weight < math.inf:
            errors.add(row.line, "weight must be a finite number, at least 0.", shown(row.weight))
    return np.array(found)


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan
