"""Everything that is known of a data set before training: `inspect` finds it."""

import collections
import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from keras_preact.data import Dataset, datasets
from keras_preact.data.sampling import SAMPLINGS, ClassSampler, groups_of
from keras_preact.data.sources import InMemory
from keras_preact.data.summary import one_line, sources_of
from keras_preact.inspection import advice, duplicates, headers, samples
from keras_preact.inspection.config import InspectionConfig
from keras_preact.inspection.duplicates import Group
from keras_preact.inspection.samples import Sheet
from keras_preact.support.paths import usable
from keras_preact.version import __version__

# Quantiles of sizes: names, and shares of the images below.
_QUANTILES = {"least": 0, "p5": 0.05, "median": 0.5, "p95": 0.95, "most": 1}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes and kinds of the images whose headers were read.

    Args:
        widths: in pixels, of upright images, int (count,).
        heights: likewise.
        kinds: images by kind, as in "JPEG".
        channels: images by channels, as in "colour".
        turned: images that Exif metadata turn.
        total: images of all splits.
    """

    widths: np.ndarray
    heights: np.ndarray
    kinds: dict[str, int]
    channels: dict[str, int]
    turned: int
    total: int

    def to_json(self) -> dict:
        """The distributions by quantiles."""
        return {
            "measured": len(self.widths),
            "total": self.total,
            "width": _quantiles(self.widths),
            "height": _quantiles(self.heights),
            "aspect": _quantiles(self.widths / np.maximum(self.heights, 1)),
            "kinds": self.kinds,
            "channels": self.channels,
            "turned": self.turned,
        }


@dataclasses.dataclass(frozen=True)
class Report:
    """A data set as the program `data` reports it.

    Args:
        dataset: the data set.
        source: its folder or file, else its name.
        augmentation: of training images, with its base.
        counts: images of each class by split, int64 (classes,).
        labels_per_image: images by number of labels, by split; empty without several labels.
        frequencies: share of training samples with each class by sampling, float64 (classes,).
        sizes: of the images.
        unreadable: (file, reason) of each file that was left out.
        duplicates: groups of copies; None where nobody looked for them.
        sheets: images of classes beside their augmented forms.
        suggestions: sentences.
        line: `data.summary.one_line`.
    """

    dataset: Dataset
    source: str
    augmentation: str
    counts: dict[str, np.ndarray]
    labels_per_image: dict[str, dict[int, int]]
    frequencies: dict[str, np.ndarray]
    sizes: Sizes
    unreadable: list[tuple[str, str]]
    duplicates: list[Group] | None
    sheets: list[Sheet]
    suggestions: list[str]
    line: str

    @property
    def imbalance(self) -> float | None:
        """Training images of the largest class by those of the smallest; None if it has none."""
        counts = self.counts["train"]
        return float(counts.max() / counts.min()) if counts.min() else None

    def to_json(self) -> dict:
        """The report but for its pictures."""
        info = self.dataset.info
        splits = {name: len(source) for name, source in sources_of(self.dataset).items()}
        return {
            "keras_preact": __version__,
            "dataset": info.name,
            "source": self.source,
            "image_shape": list(info.image_shape),
            "multi_label": info.multi_label,
            "images": splits,
            "classes": [
                {
                    "name": name,
                    **{split: int(counts[label]) for split, counts in self.counts.items()},
                    "frequency": {
                        sampling: float(shares[label])
                        for sampling, shares in self.frequencies.items()
                    },
                }
                for label, name in enumerate(info.class_names)
            ],
            "imbalance": self.imbalance,
            "labels_per_image": {
                split: {str(number): count for number, count in found.items()}
                for split, found in self.labels_per_image.items()
            },
            "sampling": self.dataset.sampling,
            "augmentation": self.augmentation,
            "mean": list(info.mean),
            "std": list(info.std),
            "sizes": self.sizes.to_json(),
            "unreadable": [{"file": file, "reason": why} for file, why in self.unreadable],
            "duplicates": None if self.duplicates is None else list(map(_group, self.duplicates)),
            "suggestions": self.suggestions,
        }


def inspect(config: InspectionConfig) -> Report:
    """Loads a data set and looks at it.

    Args:
        config: of the look; `output` and `overwrite` do not count.

    Raises:
        ValueError: as `datasets.load` does, or if the augmentation does not fit the images.
    """
    if config.data_dir is not None:
        usable(config.data_dir, "data_dir", wildcards=True)
    dataset = datasets.load(
        config.dataset,
        data_dir=config.data_dir,
        image_size=config.image_size,
        # They are listed.
        skip_bad_images=config.dataset in ("folder", "csv"),
        split=config.split,
        sampling=config.sampling,
        validation_images=config.validation_images,
    )
    augmentation = dataset.check_augmentation(config.augmentation)
    labels = {split: source.all_labels() for split, source in sources_of(dataset).items()}
    counts = {split: _counts(found, dataset.info.classes) for split, found in labels.items()}
    root = _root(config)
    found = duplicates.find(dataset, labels)
    report = Report(
        dataset=dataset,
        source=config.data_dir if root is not None else config.dataset,
        augmentation=augmentation,
        counts=counts,
        labels_per_image=_labels_per_image(labels) if dataset.info.multi_label else {},
        frequencies={
            sampling: _frequencies(labels["train"], sampling, dataset.info.classes)
            for sampling in SAMPLINGS
        },
        sizes=_sizes(dataset),
        unreadable=[(_relative(path, root), why) for path, why in dataset.findings.problems],
        duplicates=found and [_below(group, root) for group in found],
        sheets=samples.of_classes(dataset, labels["train"], augmentation, config.seed),
        suggestions=[],
        line=one_line(dataset),
    )
    return dataclasses.replace(report, suggestions=advice.suggestions(report))


def _counts(labels, classes):
    if labels.ndim == 2:
        return labels.sum(axis=0, dtype=np.float64).astype(np.int64)
    return np.bincount(labels, minlength=classes).astype(np.int64)


def _labels_per_image(labels):
    return {
        split: dict(sorted(collections.Counter(found.sum(axis=1).astype(int).tolist()).items()))
        for split, found in labels.items()
    }


def _frequencies(labels, sampling, classes):
    """The share of training samples that have each class, in the long run, float64 (classes,)."""
    if sampling == "natural":
        return _counts(labels, classes) / len(labels)
    groups = groups_of(labels)
    shares = np.zeros(classes)
    for group, share in ClassSampler(groups, sampling, 0).shares().items():
        members = groups == group
        shares += share * _counts(labels[members], classes) / members.sum()
    return shares


def _sizes(dataset: Dataset) -> Sizes:
    widths: list[int] = []
    heights: list[int] = []
    kinds, channels, turned = collections.Counter(), collections.Counter(), 0
    sources = sources_of(dataset).values()
    for source in sources:
        if isinstance(source, InMemory):
            count, height, width, depth = source.images.shape
            widths += [width] * count
            heights += [height] * count
            kinds["in memory"] += count
            channels["grey" if depth == 1 else "colour"] += count
            continue
        for header in headers.of_source(source):
            widths.append(header.width)
            heights.append(header.height)
            kinds[header.kind] += 1
            channels[header.channels] += 1
            turned += header.turned
    total = sum(map(len, sources))
    return Sizes(
        np.array(widths), np.array(heights), dict(kinds), dict(channels), int(turned), total
    )


def _quantiles(values: Sequence) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.quantile(values, list(_QUANTILES.values()), method="inverted_cdf")
    return {name: round(float(value), 4) for name, value in zip(_QUANTILES, found, strict=True)}


def _root(config):
    """The folder that paths are told relative to; None for images without paths."""
    if config.dataset not in ("folder", "csv"):
        return None
    root = os.path.expanduser(config.data_dir)
    return root if config.dataset == "folder" else os.path.dirname(root)


def _relative(path, root):
    beginning = os.path.join(root, "") if root else ""
    return path.removeprefix(beginning)


def _below(group, root):
    return Group(tuple((_relative(name, root), *rest) for name, *rest in group.images))


def _group(group):
    return {
        "across_splits": group.across_splits,
        "labels_differ": group.labels_differ,
        "images": [
            {"file": name, "split": split, "classes": list(classes)}
            for name, split, classes in group.images
        ],
    }
