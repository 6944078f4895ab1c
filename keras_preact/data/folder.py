"""A folder of images: train/ and val/, and in each one folder a class."""

from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from etils import epath

from keras_preact.data.reading import image_problem, list_folder, reason
from keras_preact.data.sources import Encoded, spread

SPLITS = ("train", "val")

# Of more files than these, only some are asked for their size to tell them from others.
LISTED_SIZES = 10_000


def load(
    data_dir: str, image_size: int, skip_bad_images: bool = False
) -> tuple[Encoded, Encoded, list[str]]:
    """Reads the two splits of a folder: (train, eval, class names).

    Every file is decoded once, so that a damaged one is found before training.
    Classes are the folders' names in sorted order. Files whose names begin with a
    dot are ignored.

    Args:
        data_dir: the folder that holds train/ and val/.
        image_size: height and width to which images are brought, in pixels.
        skip_bad_images: leave out files that cannot be decoded, and say how many.

    Raises:
        ValueError: if a folder is missing, empty or cannot be listed, the classes of the
            splits differ, or files cannot be decoded; all of these files are listed.
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
    files = _without_bad(files, skip_bad_images)
    _check_all_classes_present(root, files, names)
    sources = [_source(files[split], image_size) for split in SPLITS]
    return *sources, names


def check(data_dir: str) -> tuple[epath.Path, list[str]]:
    """The folder and its class names, before any file is read.

    Raises:
        ValueError: if a folder is missing or cannot be listed, or the splits differ in
            their classes.
    """
    root = epath.Path(data_dir).expanduser()
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
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold one folder for each of two or more classes. Received: {names}"
        )
    return names


def _is_folder(path, root):
    # Unlike is_dir, which takes links to nothing and what is locked for files.
    try:
        return path.stat().is_directory
    except (OSError, tf.errors.OpError) as error:
        raise ValueError(f"{_rule(root)} Received: {path}: {reason(error)}") from error


def _files(folder, root):
    # With links to nothing and what is locked, to be listed with the damaged files.
    paths = list_folder(folder, _rule(root))
    return [str(path) for path in paths if path.is_file() or not path.exists()]


def _without_bad(files, skip):
    every = [path for split in SPLITS for path, _ in files[split]]
    with ThreadPoolExecutor() as pool:
        reasons = zip(every, pool.map(_why_bad, every), strict=True)
        bad = {path: why for path, why in reasons if why}
    if not bad:
        return files
    listing = "\n".join(f"  {path}: {why}" for path, why in bad.items())
    if not skip:
        raise ValueError(
            f"{len(bad)} of {len(every)} files cannot be decoded as JPEG, PNG, GIF or BMP. Remove "
            f"them, or leave them out with --skip_bad_images:\n{listing}"
        )
    print(f"Left out {len(bad)} of {len(every)} files that cannot be decoded:\n{listing}")
    return {split: [pair for pair in files[split] if pair[0] not in bad] for split in SPLITS}


def _why_bad(path):
    """Why a file is no usable image, or None."""
    try:
        return image_problem(tf.io.read_file(path))
    except tf.errors.OpError as error:
        return reason(error)


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
    paths = tf.constant([path for path, _ in files])
    labels = tf.constant([label for _, label in files], tf.int32)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    def problem(index):
        path, _ = files[index]
        why = _why_bad(path)
        return f"{path}: {why}" if why else None

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
