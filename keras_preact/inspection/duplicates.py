"""Exact copies among the images of a data set."""

import dataclasses
import hashlib
from collections import defaultdict

import numpy as np

from keras_preact.data import Dataset
from keras_preact.data.sources import InMemory
from keras_preact.data.summary import places, sources_of


@dataclasses.dataclass(frozen=True)
class Group:
    """Images with the same contents.

    Args:
        images: (name, split, names of its classes) of each.
    """

    images: tuple[tuple[str, str, tuple[str, ...]], ...]

    @property
    def across_splits(self) -> bool:
        return len({split for _, split, _ in self.images}) > 1

    @property
    def labels_differ(self) -> bool:
        return len({labels for _, _, labels in self.images}) > 1


def find(dataset: Dataset, labels: dict[str, np.ndarray]) -> list[Group] | None:
    """Returns the groups of copies; None where nobody looks for them.

    Loading a folder or a CSV file finds them among its files. Images in memory are compared here.
    Those of large sets of tensorflow-datasets are not compared.

    Args:
        dataset: the data set.
        labels: of each split, as `all_labels` returns them.
    """
    sources = sources_of(dataset)
    if dataset.findings.duplicates:
        where = places(dataset)
        groups = [[(path, *where[path]) for path in paths] for paths in dataset.findings.duplicates]
    elif all(isinstance(source, InMemory) for source in sources.values()):
        groups = _in_memory(sources)
    else:
        return [] if dataset.info.name in ("folder", "csv") else None
    names = dataset.info.class_names

    def described(name, split, index):
        return name, split, _classes(labels[split][index], names)

    return [Group(tuple(described(*image) for image in group)) for group in groups]


def _in_memory(sources):
    found = defaultdict(list)
    for split, source in sources.items():
        for index, image in enumerate(source.images):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            found[digest].append((f"{split}, {source.where(index)}", split, index))
    return [group for group in found.values() if len(group) > 1]


def _classes(label, names):
    numbers = np.flatnonzero(label) if np.ndim(label) else [label]
    return tuple(names[number] for number in numbers)
