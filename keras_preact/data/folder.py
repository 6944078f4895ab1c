"""A folder of images: train/ and val/, and in each one folder a class."""

import contextlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data.augmentation import center_crop_covers
from keras_preact.data.checked import CheckedFolder, examine
from keras_preact.data.limits import sides
from keras_preact.data.listing import UNKNOWN, is_local, list_files
from keras_preact.data.reading import check_class_names, list_folder, reason
from keras_preact.data.sources import Encoded, Memory, spread
from keras_preact.support.paths import usable
from keras_preact.support.text import printable

SPLITS = ("train", "val")

# Images whose size is looked at, at most.
MEASURED_IMAGES = 256

# Files whose size goes into the digest, at most.
LISTED_SIZES = 10_000


def load(
    data_dir: str, image_size: int, skip_bad_images: bool = False
) -> tuple[Encoded, Encoded, list[str]]:
    """Reads the two splits of a folder: (train, eval, class names).

    Every file is decoded once, so that a damaged one is found before training, and again when
    it has changed; see `checked`. It must be a JPEG, a PNG, a GIF that is no animation, or a
    BMP, within the bounds of `limits.problem`, and a regular file or a link to one. Classes are
    the folders' names in sorted order. Files whose names begin with a dot are ignored.
    TensorFlow ignores the palette of a BMP: its colours become shades of grey.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: height and width to which images are brought, in pixels.
        skip_bad_images: whether to leave out files that cannot be decoded, and list them.

    Raises:
        ValueError: if a folder is missing, empty or cannot be listed, its name is no line
            of UTF-8, the classes of the splits differ, or files cannot be decoded; it lists
            all of these files.
    """
    root, names = check(data_dir)
    folders = [root / split / name for split in SPLITS for name in names]
    files = list_files(folders, _rule(root))
    _check_all_classes_present(folders, files)
    checked = CheckedFolder(root, files, image_size)
    files = _without_bad(checked, files, skip_bad_images)
    _check_all_classes_present(folders, files)
    is_train = files.labels < len(names)
    train, evaluation = files.select(is_train), files.select(~is_train)
    evaluation.labels[:] -= len(names)
    memory = Memory(checked.moments(train), lambda found: checked.keep_moments(train, found))
    return _source(train, image_size, memory), _source(evaluation, image_size), names


def check(data_dir: str) -> tuple[epath.Path, list[str]]:
    """Returns the folder and its class names, without reading a file.

    Raises:
        ValueError: if a folder is missing or cannot be listed, its name is no line of
            UTF-8, or the splits differ in their classes.
    """
    root = usable(data_dir, "data_dir", wildcards=True)
    list_folder(root, _rule(root))
    classes = {split: _class_names(root, split) for split in SPLITS}
    every = set().union(*classes.values())
    missing = {split: sorted(every - set(names)) for split, names in classes.items()}
    if any(missing.values()):
        lines = [f"Missing in {s}/: {', '.join(some)}." for s, some in missing.items() if some]
        raise ValueError(
            f"train/ and val/ of {root} must hold the same class folders. {' '.join(lines)}"
        )
    return root, classes["train"]


def median_pixels(data_dir: str) -> float | None:
    """Returns the median of height times width over some training images; None if none is one.

    Reads the headers of at most `MEASURED_IMAGES` files, evenly spaced. Damaged ones do not
    count.

    Raises:
        ValueError: if a folder is missing or cannot be listed.
    """
    root, names = check(data_dir)
    files = list_files([root / SPLITS[0] / name for name in names], _rule(root))
    found = []
    for index in spread(len(files), MEASURED_IMAGES) if len(files) else ():
        with contextlib.suppress(tf.errors.OpError):
            height, width = sides(tf.io.read_file(files.paths[index])).numpy()
            found.append(int(height) * int(width))
    found = [pixels for pixels in found if pixels > 0]
    return float(np.median(found)) if found else None


def _rule(root):
    return f"{root} must be a folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE."


def _class_names(root, split):
    folder = root / split
    names = [path.name for path in list_folder(folder, _rule(root)) if _is_folder(path, root)]
    check_class_names(names, str(folder))
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold one folder for each of two or more classes. Received: {names}"
        )
    return names


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


def _without_bad(checked, files, skip):
    problems = checked.problems()
    if not problems:
        return files
    listing = "\n".join(f"  {printable(files.paths[i])}: {why}" for i, why in problems.items())
    if not skip:
        raise ValueError(
            f"{len(problems)} of {len(files)} files cannot be decoded as JPEG, PNG, GIF or BMP. "
            f"Remove them, or leave them out with --skip_bad_images:\n{listing}"
        )
    print(f"Left out {len(problems)} of {len(files)} files that cannot be decoded:\n{listing}")
    good = np.ones(len(files), bool)
    good[list(problems)] = False
    return files.select(good)


def _check_all_classes_present(folders, files):
    present = np.isin(np.arange(len(folders)), files.labels)
    if not present.all():
        empty = [str(folder) for folder, has in zip(folders, present, strict=True) if not has]
        raise ValueError(
            "Every class folder must hold an image, and files whose names begin with a dot do "
            f"not count. Received without one: {', '.join(empty)}"
        )


def _source(files, image_size, memory=None):
    covered = center_crop_covers(image_size)
    paths, labels = tf.constant(files.paths), tf.constant(files.labels)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    def problem(index):
        path = files.paths[index]
        why, _ = examine(path, covered)
        return f"{printable(path)}: {why}" if why else None

    def listing():
        rows = zip(files.labels.tolist(), files.paths, strict=True)
        names = "".join(f"{label} {os.path.basename(path)}\n" for label, path in rows)
        with ThreadPoolExecutor() as pool:
            some = spread(len(files), LISTED_SIZES)
            sizes = list(pool.map(lambda index: _size(files, index), some))
        return f"{names}{sizes}".encode(errors="surrogateescape")

    return Encoded(
        read, len(files), image_size, problem, files.paths.__getitem__, listing, memory or Memory()
    )


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
