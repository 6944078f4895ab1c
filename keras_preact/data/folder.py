"""A folder of images with a folder for each class, below the folders of splits or without them."""

import contextlib
import dataclasses
import os
import stat
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import image_files
from keras_preact.data.image_files import ImageFiles
from keras_preact.data.limits import sides
from keras_preact.data.listing import is_local, list_files
from keras_preact.data.reading import check_class_names, list_folder, reason
from keras_preact.data.sources import Loaded, spread
from keras_preact.data.splitting import TEST, TRAIN, VAL
from keras_preact.support.paths import usable
from keras_preact.support.text import printable

# The names that the folder of a split may have; the first that is there counts.
NAMES = {TRAIN: ("train",), VAL: ("val", "valid", "validation"), TEST: ("test",)}

# Images whose size is looked at, at most.
MEASURED_IMAGES = 256


@dataclasses.dataclass(frozen=True)
class _Layout:
    """Where the images of a folder lie.

    Args:
        root: the folder.
        class_names: by label.
        folders: a folder for each pair of a split and a class.
        splits: of these folders.
        labels: of these folders.
        nested: whether images in folders of these folders count.
        notes: lines for people.
    """

    root: epath.Path
    class_names: list[str]
    folders: list[epath.Path]
    splits: np.ndarray
    labels: np.ndarray
    nested: bool
    notes: list[str]


def load(
    data_dir: str,
    image_size: int,
    skip_bad_images: bool = False,
    split: Sequence[int] | None = None,
) -> Loaded:
    """Reads a folder of images.

    | folder | splits |
    |---|---|
    | train/CLASS/IMAGE, val/CLASS/IMAGE | as they are; also `valid` or `validation` |
    | and test/CLASS/IMAGE | test, where it has classes of train/ |
    | train/CLASS/IMAGE, test/CLASS/IMAGE | train/ is divided for training and validation |
    | train/CLASS/IMAGE, or CLASS/IMAGE | divided for training, validation and test |

    Beside a folder for validation, images lie in the class folders themselves; in the other
    layouts they may also lie in folders below. Every file is decoded once, so that a damaged one
    is found before training, and again when it has changed; see `checked`. It must be a JPEG, a
    PNG, a GIF that is no animation, or a BMP, within the bounds of `limits.problem`, and a
    regular file or a link to one. Classes are the folders' names in sorted order. Files whose
    names begin with a dot are ignored. TensorFlow ignores the palette of a BMP: its colours
    become shades of grey.

    Args:
        data_dir: the folder.
        image_size: height and width to which images are brought, in pixels.
        skip_bad_images: whether to leave out files that cannot be decoded, and list them.
        split: percentages of the splits, where the folder leaves them open; see
            `image_files.percentages`.

    Raises:
        ValueError: if a folder is missing, empty or cannot be listed, its name is no line
            of UTF-8, the classes of the splits differ, the split contradicts them, or files
            cannot be decoded; it lists all of these files.
    """
    layout = _layout(data_dir)
    image_files.percentages(set(layout.splits.tolist()), split, str(layout.root))
    files = list_files(layout.folders, _rule(layout.root), layout.nested)
    # Until here, the label of a file is the number of its folder.
    numbers = files.labels
    files = dataclasses.replace(files, labels=layout.labels[numbers])
    images = ImageFiles(
        layout.root, files, layout.splits[numbers], layout.class_names, str(layout.root)
    )
    for note in layout.notes:
        print(note)
    return image_files.load(
        images, image_size, skip_bad_images, split, lambda left: _check_present(layout, left)
    )


def check(data_dir: str) -> tuple[epath.Path, list[str]]:
    """Returns the folder and its class names, without reading a file.

    Raises:
        ValueError: if a folder is missing or cannot be listed, its name is no line of
            UTF-8, or the splits differ in their classes.
    """
    layout = _layout(data_dir)
    return layout.root, layout.class_names


def median_pixels(data_dir: str) -> float | None:
    """Returns the median of height times width over some training images; None if none is one.

    Reads the headers of at most `MEASURED_IMAGES` files, evenly spaced. Damaged ones do not
    count. Where the folder leaves the split open, images of all splits count.

    Raises:
        ValueError: if a folder is missing or cannot be listed.
    """
    layout = _layout(data_dir)
    folders = [layout.folders[number] for number in np.flatnonzero(layout.splits == TRAIN)]
    return median_of(list_files(folders, _rule(layout.root), layout.nested).paths)


def median_of(paths: Sequence[str]) -> float | None:
    """Returns the median of height times width over some image files; see `median_pixels`."""
    found = []
    for index in spread(len(paths), MEASURED_IMAGES) if len(paths) else ():
        with contextlib.suppress(tf.errors.OpError):
            height, width = sides(tf.io.read_file(paths[index])).numpy()
            found.append(int(height) * int(width))
    found = [pixels for pixels in found if pixels > 0]
    return float(np.median(found)) if found else None


def _rule(root):
    return (
        f"{root} must be a folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE, or CLASS/IMAGE "
        "alone."
    )


def _layout(data_dir):
    root = usable(data_dir, "data_dir", wildcards=True)
    present = {path.name for path in list_folder(root, _rule(root))}
    folders = {number: _folder_of_split(root, names, present) for number, names in NAMES.items()}
    if folders[VAL]:
        return _with_validation(root, folders)
    has_train = folders[TRAIN] and _holds_folders(folders[TRAIN], root)
    if not has_train and folders[TEST] is None:
        return _make(root, {TRAIN: root}, _class_names(root, root), nested=True)
    # Without train/, listing it says that it is missing.
    train = root / NAMES[TRAIN][0]
    names = _class_names(train, root)
    tests, notes = _test_classes(root, folders[TEST], names)
    return _make(root, {TRAIN: train, TEST: folders[TEST]}, names, True, tests, notes)


def _folder_of_split(root, names, present):
    found = [name for name in names if name in present]
    return root / found[0] if found else None


def _with_validation(root, folders):
    train, val = root / NAMES[TRAIN][0], folders[VAL]
    classes = {part: _class_names(part, root) for part in (train, val)}
    every = set().union(*classes.values())
    missing = {part.name: sorted(every - set(names)) for part, names in classes.items()}
    if any(missing.values()):
        lines = [f"Missing in {s}/: {', '.join(some)}." for s, some in missing.items() if some]
        raise ValueError(
            f"train/ and {val.name}/ of {root} must hold the same class folders. {' '.join(lines)}"
        )
    tests, notes = _test_classes(root, folders[TEST], classes[train])
    places = {TRAIN: train, VAL: val, TEST: folders[TEST]}
    return _make(root, places, classes[train], False, tests, notes)


def _test_classes(root, test, names):
    """The classes that test/ has, and a note where it is left out: its images have no labels."""
    if test is None or not _is_folder(test, root):
        return [], []
    found = [path.name for path in list_folder(test, _rule(root)) if _is_folder(path, root)]
    if unknown := sorted(set(found) - set(names)):
        if len(unknown) < len(found):
            raise ValueError(
                f"{test} must hold no other classes than train/. Received: {', '.join(unknown)}"
            )
        found = []
    if found:
        return [name for name in names if name in found], []
    return [], [f"{test} is left out: it has no folder of a class."]


def _make(root, places, names, nested, tests=(), notes=()):
    folders, splits, labels = [], [], []
    for number, place in places.items():
        for name in tests if number == TEST else names:
            folders.append(place / name)
            splits.append(number)
            labels.append(names.index(name))
    numbers = np.array(splits, np.int8), np.array(labels, np.int32)
    return _Layout(root, names, folders, *numbers, nested, list(notes))


def _class_names(folder, root):
    names = [path.name for path in list_folder(folder, _rule(root)) if _is_folder(path, root)]
    check_class_names(names, str(folder))
    if len(names) < 2:
        rule = f"{_rule(root)} " if folder == root else ""
        raise ValueError(
            f"{rule}{folder} must hold one folder for each of two or more classes. "
            f"Received: {names}"
        )
    return names


def _holds_folders(folder, root):
    """Whether a folder named train is that of a split, and not of a class of trains."""
    return any(_is_folder(path, root) for path in list_folder(folder, _rule(root)))


def _is_folder(path, root):
    # is_dir would take broken links and locked folders for files.
    try:
        # etils would ask for the name of the owner, who may have none.
        if is_local(path):
            return stat.S_ISDIR(os.stat(path).st_mode)
        return path.stat().is_directory
    except (OSError, tf.errors.OpError) as error:
        received = f"{printable(os.fspath(path))}: {reason(error)}"
        raise ValueError(f"{_rule(root)} Received: {received}") from error


def _check_present(layout, images):
    """Raises ValueError if a class folder holds no image; those of test/ may be empty."""

    def folders(splits, labels):
        return splits.astype(np.int64) * len(layout.class_names) + labels

    present = np.isin(folders(layout.splits, layout.labels), folders(images.splits, images.labels))
    empty = [
        str(folder)
        for folder, split, has in zip(layout.folders, layout.splits, present, strict=True)
        if split != TEST and not has
    ]
    if empty:
        raise ValueError(
            "Every class folder must hold an image, and files whose names begin with a dot do "
            f"not count. Received without one: {', '.join(empty)}"
        )
