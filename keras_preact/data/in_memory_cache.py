"""Caches of what takes a prepared data set long to find: decoded images, mean and deviation."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_preact.data import cache
from keras_preact.data.cache import Cache, Contents
from keras_preact.data.reading import check_class_names
from keras_preact.data.sources import Encoded, InMemory, Loaded, Memory
from keras_preact.data.tfds_records import Records

_SPLITS = ("train", "eval", "test")


class InMemoryCache:
    """The decoded images of a data set, its classes and the moments of the training images.

    Args:
        folder: of the data.
        name: of the data set.
        state: of its files, a JSON value.
    """

    def __init__(self, folder: os.PathLike | str, name: str, state: Any):
        self._cache = Cache(folder, "images", {"dataset": name, "state": state})

    def read(self) -> Loaded | None:
        """Returns the images of all splits and the class names; None without a cache."""
        contents = self._cache.read()
        try:
            return contents and _parse(contents)
        except (KeyError, TypeError, ValueError):
            return None  # made by hand

    def write(self, loaded: Loaded) -> None:
        """Replaces the cache, if it can be written. The training images' moments are known."""
        mean, std = loaded.train.moments
        sources = dict(zip(_SPLITS, (loaded.train, loaded.evaluation, loaded.test), strict=True))
        sources = {split: source for split, source in sources.items() if source is not None}
        facts = {"class_names": list(loaded.class_names), "mean": mean, "std": std}
        facts["splits"], arrays = list(sources), {}
        for split, source in sources.items():
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = source.images, source.labels
        self._cache.write(Contents(facts, arrays))


def memory_of(folder: os.PathLike | str, name: str, paths: Sequence[str]) -> Memory:
    """Returns the memory of the mean and deviation of a split, kept in a cache.

    Args:
        folder: that takes the cache.
        name: of the split and of the size that its images are brought to.
        paths: of its files.
    """
    state = cache.stamps(paths)
    if state is None:
        return Memory()
    kept = Cache(folder, f"moments-{name}", {"state": state})

    def keep(moments):
        kept.write(Contents({"mean": moments[0], "std": moments[1]}, {}))

    contents = kept.read()
    try:
        facts = contents and cache.check_moments(**contents.facts, channels=3)
    except (TypeError, ValueError):
        facts = None
    return Memory(facts, keep, lambda part: memory_of(folder, f"{name}-{part}", paths))


def remembered_labels(
    folder: os.PathLike | str, split: str, paths: Sequence[str], records: Records
) -> Callable[[], np.ndarray]:
    """Returns a function that reads all labels of a split once, and keeps them in a cache.

    Args:
        folder: that takes the cache.
        split: of the data set.
        paths: of its files.
        records: in these files.
    """

    @functools.cache
    def find():
        state = cache.stamps(paths)
        kept = state and Cache(folder, f"labels-{split}", {"state": state})
        contents = kept and kept.read()
        labels = contents.arrays.get("labels") if contents else None
        if labels is not None and _are_labels(labels, len(records), records.classes):
            return labels
        labels = Encoded(records.read, len(records), 1, records.problem).all_labels()
        if kept:
            kept.write(Contents({}, {"labels": labels}))
        return labels

    return find


def _are_labels(labels, count, classes):
    is_typed = (labels.shape, labels.dtype) == ((count,), np.int32)
    return is_typed and bool(((labels >= 0) & (labels < classes)).all())


def _parse(contents):
    names, sources = contents.facts["class_names"], []
    check_class_names(names, "its class_names")
    moments, splits = None, contents.facts["splits"]
    if splits not in (list(_SPLITS), list(_SPLITS[:2])):
        raise ValueError(f"splits must be {', '.join(_SPLITS)} or the first two")
    for split in splits:
        images, labels = (contents.arrays[f"{split}_{part}"] for part in ("images", "labels"))
        if (images.ndim, images.dtype) != (4, np.uint8) or not images.size:
            raise ValueError("images must be uint8 (count, height, width, channels)")
        if (labels.shape, labels.dtype) != (images.shape[:1], np.int32):
            raise ValueError("each image must have a label")
        if labels.min() < 0 or labels.max() >= len(names):
            raise ValueError("labels must be of classes")
        if split == "train":
            mean, std = contents.facts["mean"], contents.facts["std"]
            moments = cache.check_moments(mean, std, images.shape[-1])
        elif images.shape[1:] != sources[0].images.shape[1:]:
            raise ValueError("all images must have one shape")
        sources.append(InMemory(images, labels, moments if split == "train" else None))
    train, evaluation, *test = sources
    return Loaded(train, evaluation, names, *test)
