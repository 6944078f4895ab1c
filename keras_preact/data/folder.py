"""A folder of images: train/ and val/, and in each one folder a class."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from etils import epath

from keras_preact.data.augmentation import center_crop_covers
from keras_preact.data.reading import check_class_names, image_problem, list_folder, reason
from keras_preact.data.sources import Encoded, spread
from keras_preact.support.paths import usable
from keras_preact.support.text import printable

SPLITS = ("train", "val")

# More than the largest image that may be decoded, at 8 bytes a pixel.
MAX_FILE_BYTES = 2**29

_KINDS_OF_FILES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Files whose size goes into the digest, at most.
LISTED_SIZES = 10_000


def load(
    data_dir: str, image_size: int, skip_bad_images: bool = False
) -> tuple[Encoded, Encoded, list[str]]:
    """Reads the two splits of a folder: (train, eval, class names).

    Every file is decoded once, so that a damaged one is found before training. It must be
    a JPEG, a PNG, a GIF that is no animation, or a BMP, within the bounds of
    `limits.problem`, and a regular file or a link to one. Classes are the folders' names
    in sorted order. Files whose names begin with a dot are ignored. TensorFlow ignores the
    palette of a BMP: its colours become shades of grey.

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
    files = {
        split: [
            (path, label)
            for label, name in enumerate(names)
            for path in _files(root / split / name, root)
        ]
        for split in SPLITS
    }
    _check_all_classes_present(root, files, names)
    files = _without_bad(files, center_crop_covers(image_size), skip_bad_images)
    _check_all_classes_present(root, files, names)
    sources = [_source(files[split], image_size) for split in SPLITS]
    return *sources, names


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
        if _is_local(path):
            return stat.S_ISDIR(os.stat(path).st_mode)
        return path.stat().is_directory
    except (OSError, tf.errors.OpError) as error:
        received = f"{printable(os.fspath(path))}: {reason(error)}"
        raise ValueError(f"{_rule(root)} Received: {received}") from error


def _is_local(path):
    return "://" not in os.fspath(path)


def _files(folder, root):
    # Files that are no images too: they are listed with the damaged ones.
    return [str(path) for path in list_folder(folder, _rule(root)) if not path.is_dir()]


def _without_bad(files, covered, skip):
    every = [path for split in SPLITS for path, _ in files[split]]
    with ThreadPoolExecutor() as pool:
        problems = pool.map(lambda path: _why_bad(path, covered), every)
        bad = {path: why for path, why in zip(every, problems, strict=True) if why}
    if not bad:
        return files
    listing = "\n".join(f"  {printable(path)}: {why}" for path, why in bad.items())
    if not skip:
        raise ValueError(
            f"{len(bad)} of {len(every)} files cannot be decoded as JPEG, PNG, GIF or BMP. Remove "
            f"them, or leave them out with --skip_bad_images:\n{listing}"
        )
    print(f"Left out {len(bad)} of {len(every)} files that cannot be decoded:\n{listing}")
    return {split: [pair for pair in files[split] if pair[0] not in bad] for split in SPLITS}


def _why_bad(path, covered):
    """Why a file cannot be used as an image, or None."""
    try:
        return _why_unread(path) or image_problem(tf.io.read_file(path), covered)
    except (OSError, tf.errors.OpError) as error:
        return reason(error)


def _why_unread(path):
    """Why a file must not be opened, which may take forever, or None."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8, and TensorFlow can open no other files"
    if not _is_local(path):
        return None
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        return f"{_KINDS_OF_FILES.get(stat.S_IFMT(status.st_mode), 'something')}, no regular file"
    if status.st_size > MAX_FILE_BYTES:
        return f"{status.st_size:,} bytes, more than the {MAX_FILE_BYTES:,} of the largest images"
    return None


def _check_all_classes_present(root, files, names):
    empty = []
    for split in SPLITS:
        present = {label for _, label in files[split]}
        empty += [str(root / split / n) for label, n in enumerate(names) if label not in present]
    if empty:
        raise ValueError(
            "Every class folder must hold an image, and files whose names begin with a dot do "
            f"not count. Received without one: {', '.join(empty)}"
        )


def _source(files, image_size):
    covered = center_crop_covers(image_size)
    paths = tf.constant([path for path, _ in files])
    labels = tf.constant([label for _, label in files], tf.int32)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    def problem(index):
        path, _ = files[index]
        why = _why_bad(path, covered)
        return f"{printable(path)}: {why}" if why else None

    def listing():
        names = "".join(f"{label} {epath.Path(path).name}\n" for path, label in files)
        with ThreadPoolExecutor() as pool:
            some = spread(len(files), LISTED_SIZES)
            sizes = list(pool.map(lambda index: _size(files[index][0]), some))
        return f"{names}{sizes}".encode(errors="surrogateescape")

    return Encoded(read, len(files), image_size, problem, lambda index: files[index][0], listing)


def _size(path):
    try:
        return tf.io.gfile.stat(path).length
    except tf.errors.OpError as error:
        raise ValueError(
            f"Every image must be readable. Received: {path}: {reason(error)}"
        ) from error
