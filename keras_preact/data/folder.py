"""A folder of images: train/ and val/, and in each one folder a class."""

from concurrent.futures import ThreadPoolExecutor

import tensorflow as tf
from etils import epath

from keras_preact.data.sources import Encoded

SPLITS = ("train", "val")


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
        ValueError: if a folder is missing or empty, the classes of the splits differ,
            or files cannot be decoded; all of these files are listed.
    """
    root, names = check(data_dir)
    files = {
        split: [
            (path, label)
            for label, name in enumerate(names)
            for path in _files(root / split / name)
        ]
        for split in SPLITS
    }
    files = _without_bad(files, skip_bad_images)
    _check_all_classes_present(root, files, names)
    sources = [_source(files[split], image_size) for split in SPLITS]
    return *sources, names


def check(data_dir: str) -> tuple[epath.Path, list[str]]:
    """The folder and its class names, before any file is read.

    Raises:
        ValueError: if a folder is missing, or the splits differ in their classes.
    """
    root = epath.Path(data_dir).expanduser()
    train, val = (_class_names(root, split) for split in SPLITS)
    if train != val:
        raise ValueError(
            f"train/ and val/ of {root} must hold the same class folders. Only in one of "
            f"them: {', '.join(sorted(set(train) ^ set(val)))}"
        )
    return root, train


def _class_names(root, split):
    folder = root / split
    if not folder.is_dir():
        raise ValueError(
            f"{root} must hold train/CLASS/IMAGE and val/CLASS/IMAGE. There is no folder {folder}"
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and _visible(path))
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold one folder for each of two or more classes. Received: {names}"
        )
    return names


def _files(folder):
    paths = sorted(path for path in folder.iterdir() if path.is_file() and _visible(path))
    return [str(path) for path in paths]


def _visible(path):
    return not path.name.startswith(".")


def _without_bad(files, skip):
    every = [path for split in SPLITS for path, _ in files[split]]
    with ThreadPoolExecutor() as pool:
        reasons = dict(zip(every, pool.map(_why_bad, every), strict=True))
    bad = {path: reason for path, reason in reasons.items() if reason}
    if not bad:
        return files
    listing = "\n".join(f"  {path}: {reason}" for path, reason in bad.items())
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
        data = tf.io.read_file(path)
        if not tf.strings.length(data):
            return "empty file"
        if tf.io.is_jpeg(data):
            # An eighth of the size: reads all of the file, in a fraction of the time.
            tf.io.decode_jpeg(data, channels=3, ratio=8)
        else:
            tf.io.decode_image(data, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return "not an image, or damaged"
    except tf.errors.OpError as error:
        return error.message
    return None


def _check_all_classes_present(root, files, names):
    for split in SPLITS:
        present = {label for _, label in files[split]}
        empty = [name for label, name in enumerate(names) if label not in present]
        if empty:
            raise ValueError(
                f"Every class folder must hold an image. Empty in {root / split}: "
                f"{', '.join(empty)}"
            )


def _source(files, image_size):
    paths = tf.constant([path for path, _ in files])
    labels = tf.constant([label for _, label in files], tf.int32)

    def read(index):
        return tf.io.read_file(paths[index]), labels[index]

    return Encoded(read, len(files), image_size)
