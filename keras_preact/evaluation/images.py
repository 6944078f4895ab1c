"""Labelled images of any data set, read one by one as prediction reads files."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from etils import epath

from keras_preact.data import datasets, folder, splitting
from keras_preact.data.listing import list_files
from keras_preact.data.reading import check_class_names, list_folder, one_line
from keras_preact.data.sources import InMemory
from keras_preact.evaluation.config import EvaluateConfig
from keras_preact.evaluation.models import Model
from keras_preact.prediction.pipeline import NoImageError, contents_of
from keras_preact.prediction.sources import Files
from keras_preact.support import records
from keras_preact.support.paths import usable
from keras_preact.support.text import shown

# Data sets of files that users divide.
_OF_FILES = ("folder", "csv")
_EVAL = {"train": "train", "val": "eval", "test": "test"}
_MOST_NAMES = 10
_MOST_CSV_BYTES = 2**31


@dataclasses.dataclass(frozen=True)
class Images:
    """Images and their classes.

    Args:
        description: which images they are, for people.
        class_names: of the data, by label.
        count: of images.
        name: names an image by its index: by its path, if it is a file of its own.
        contents: returns the bytes of an image's file. Raises NoImageError.
        label: returns the label of an image whose contents have been read: an int, or float32
            (classes,) of zeros and ones where an image may be of several classes.
        multi_label: whether it may.
        pixels: of all images, where they are in memory at one size: uint8 (count, height, width,
            channels).
        problems: why a file was left out, by its path.
    """

    description: str
    class_names: tuple[str, ...]
    count: int
    name: Callable[[int], str]
    contents: Callable[[int], bytes]
    label: Callable[[int], int | np.ndarray]
    multi_label: bool = False
    pixels: np.ndarray | None = None
    problems: tuple[tuple[str, str], ...] = ()


def load(config: EvaluateConfig, model: Model) -> tuple[Images, str]:
    """Finds the images of an evaluation, and the name of their split.

    Args:
        config: of the evaluation.
        model: whose run, if it is of one, gives the data set where the flags do not.

    Raises:
        ValueError: if there is no such data set or split.
    """
    name, data_dir = _data_set(config, model)
    split = config.split or _default_split(config, model, name, data_dir)
    if name == "folder":
        root = usable(data_dir, "data_dir", wildcards=True)
        divided = _divisions(root)
        if folders := _folders(divided, root, split):
            return _listed(root, folders, split, nested="val" not in divided), split
    return _of_data_set(config, model, name, data_dir, split), split


def match(images: Images, model: Model) -> np.ndarray:
    """Returns the model's label of each class of the data, int64 (classes,).

    Classes are matched by name. Where the model knows no names, the data must have as many
    classes, and they are in order.

    Raises:
        ValueError: if the data have a class that the model does not know.
    """
    names, known = images.class_names, model.class_names
    if not model.has_names:
        if len(names) != len(known):
            raise ValueError(
                f"The data must have the {len(known)} classes of the model, which knows none by "
                f"name. Received: {len(names)} classes"
            )
        return np.arange(len(names))
    places = {name: label for label, name in enumerate(known)}
    if unknown := [name for name in names if name not in places]:
        more = f" and {len(unknown) - _MOST_NAMES:,} more" if len(unknown) > _MOST_NAMES else ""
        raise ValueError(
            f"Every class of the data must be one of the model's, by its name. {model.name} knows "
            f"{_few(known)}. Received, unknown to it: {_few(unknown)}{more}"
        )
    return np.array([places[name] for name in names])


def _few(names: Sequence[str]) -> str:
    quoted = ", ".join(map(shown, names[:_MOST_NAMES]))
    return quoted + (", ..." if len(names) > _MOST_NAMES else "")


def _data_set(config, model):
    """(data set, data_dir): the flags', and the run's where they do not say."""
    run, name, data_dir = model.run, config.dataset, config.data_dir
    if name is None and data_dir is not None:
        name = "csv" if data_dir.lower().endswith(".csv") else "folder"
        if run and run.dataset not in _OF_FILES:
            # Perhaps where tensorflow-datasets has moved to.
            builder = run.dataset.partition("/")[0].partition(":")[0]
            name = run.dataset if (epath.Path(data_dir) / builder).exists() else name
    elif run and name in (None, run.dataset):
        name, data_dir = run.dataset, data_dir or run.data_dir
    if name is None:
        raise ValueError(
            "dataset or data_dir must be given, as the model is no run, which knows its data. "
            f"Received: model={model.name}, dataset=None, data_dir=None"
        )
    if name in _OF_FILES and not data_dir:
        raise ValueError(f"dataset={name} needs data_dir. Received: data_dir=None")
    return name, data_dir


def _default_split(config, model, name, data_dir):
    own = model.run is not None and model.run.data_dir == data_dir
    if name not in _OF_FILES or own or config.divide:
        return "val"
    if name == "csv":
        header = records.contents(data_dir, _MOST_CSV_BYTES).partition(b"\n")[0]
        columns = header.decode("utf-8-sig", errors="replace").lower().split(",")
        return "val" if "split" in map(str.strip, columns) else "all"
    divided = _divisions(usable(data_dir, "data_dir", wildcards=True))
    return next((split for split in ("val", "test") if split in divided), "all")


def _divisions(root):
    """The folder of each split that a folder holds, by the split."""
    below = {path.name: path for path in list_folder(root, _rule(root)) if path.is_dir()}
    found = {}
    for number, names in folder.NAMES.items():
        split = next((below[name] for name in names if name in below), None)
        # Otherwise it is a class, as of trains.
        if split and any(path.is_dir() for path in list_folder(split, _rule(root))):
            found[splitting.SPLITS[number]] = split
    return found


def _rule(root):
    return f"{root} must hold a folder for each class, or such folders in train/, val/ or test/."


def _folders(divided, root, split):
    """The folders that hold the class folders of a split; none if percentages decide."""
    if not divided:
        return [root] if split == "all" else []
    if split == "all":
        return list(divided.values())
    # Without a folder for validation, percentages divide that for training.
    if split != "test" and "val" not in divided and "train" in divided:
        return []
    if split not in divided:
        raise ValueError(
            f"split must be {', '.join(divided)} or all, as {root} has no other folders. "
            f"Received: split={split}"
        )
    return [divided[split]]


def _listed(root, folders, split, nested):
    """Images of class folders, which are listed and not decoded."""
    rule = _rule(root)
    below = {each: [path for path in list_folder(each, rule) if path.is_dir()] for each in folders}
    names = sorted({path.name for paths in below.values() for path in paths})
    check_class_names(names, str(root))
    if not names:
        raise ValueError(f"{rule} Received: none in {', '.join(map(str, folders))}")
    places = [(path, names.index(path.name)) for paths in below.values() for path in paths]
    files = list_files([path for path, _ in places], rule, nested)
    labels = np.array([label for _, label in places])[files.labels]
    if not len(files):
        raise ValueError(f"{rule} Received: no images in {', '.join(map(str, folders))}")
    return Images(
        description=f"{split} of {root}",
        class_names=tuple(names),
        count=len(files),
        name=files.paths.__getitem__,
        contents=contents_of(Files(files.paths)),
        label=lambda index: int(labels[index]),
    )


def _of_data_set(config, model, name, data_dir, split):
    """Images of a data set that `datasets.load` makes."""
    options, run = {}, model.run
    if run and run.dataset != name:
        run = None
    if name in _OF_FILES:
        divide = config.divide or (run.split if run else None)
        options = {"skip_bad_images": True, "split": divide}
        if run:
            options["image_size"] = run.image_size
    else:
        options = {"validation_images": run.validation_images if run else None}
        if name == "synthetic":
            options["image_size"] = model.preprocessing.image_shape[0]
    data = datasets.load(name, data_dir=data_dir, like=model.preprocessing, **options)
    sources = {
        known: data.source(which)
        for known, which in _EVAL.items()
        if which != "test" or data.test_source is not None
    }
    if split != "all" and split not in sources:
        raise ValueError(
            f"split must be {', '.join(sources)} or all: {name} has no other; val is what training "
            f"evaluates on. Received: split={split}"
        )
    parts = list(sources.values()) if split == "all" else [sources[split]]
    where = f"{split} of {data_dir if name in _OF_FILES else name}"
    if name in _OF_FILES and config.divide is not None:
        where += f", divided {splitting.shown(config.divide)}"
    images = _joined([_of_source(part, data.info, where) for part in parts])
    return dataclasses.replace(images, problems=tuple(data.findings.problems))


def _of_source(source, info, where):
    labels = source.labels
    found: dict[int, int | np.ndarray] = {}
    pixels = source.images if isinstance(source, InMemory) else None

    if pixels is not None:
        contents = source.file
    else:

        @tf.function(input_signature=[tf.TensorSpec([], tf.int64)])
        def read(index):
            with tf.device("CPU"):
                return source.read(index)

        def contents(index):
            try:
                data, label = read(tf.constant(index, tf.int64))
            except tf.errors.ResourceExhaustedError:
                raise
            except tf.errors.OpError as error:
                raise NoImageError(one_line(error)) from None
            if labels is None:
                found[index] = label.numpy()
            return data.numpy()

    return Images(
        description=where,
        class_names=tuple(info.class_names),
        count=len(source),
        name=source.where,
        contents=contents,
        label=lambda index: found[index] if labels is None else labels[index],
        multi_label=info.multi_label,
        pixels=pixels,
    )


def _joined(parts):
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(part.count for part in parts)])

    def of_part(method):
        def call(index):
            place = int(np.searchsorted(starts, index, side="right")) - 1
            return getattr(parts[place], method)(index - int(starts[place]))

        return call

    in_memory = all(part.pixels is not None for part in parts)
    return dataclasses.replace(
        parts[0],
        count=int(starts[-1]),
        name=of_part("name"),
        contents=of_part("contents"),
        label=of_part("label"),
        pixels=np.concatenate([part.pixels for part in parts]) if in_memory else None,
    )
