"""The flags of data and their rules."""

import dataclasses
import os
from collections.abc import Sequence

from keras_preact.data import augmentation_text, splitting, tfds_source
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.text import shown
from keras_preact.training import TrainConfig

TABLE_SUFFIXES = (".csv",)


def _as_train(name):
    """A field that train.py has, too."""
    field = TrainConfig.__dataclass_fields__[name]
    return dataclasses.field(default=field.default, metadata=field.metadata)


@dataclasses.dataclass(frozen=True)
class InspectionConfig:
    """One look at a data set. The fields are flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule.
    """

    dataset: str | None = _as_train("dataset")
    data_dir: str | None = _as_train("data_dir")
    image_size: int | None = _as_train("image_size")
    augmentation: str | None = _as_train("augmentation")
    split: tuple[int, ...] | None = _as_train("split")
    validation_images: int | None = _as_train("validation_images")
    sampling: str = _as_train("sampling")
    seed: int = option("data", "seed of data order and augmentation, as for training", 0)

    output: str = option("output", "folder of the report", "data_report")
    overwrite: bool = option("output", "replace an earlier report there", False)

    def __post_init__(self):
        options.check_choices(self)
        options.check_range(self, ("seed",), least=0)
        options.check_range(self, ("image_size", "validation_images"), least=1)
        if self.augmentation is not None:
            augmentation_text.parse(self.augmentation)
        if self.split is not None:
            splitting.check(self.split)

    def of_source(self, words: Sequence[str]) -> "InspectionConfig":
        """Returns the configuration with dataset and data_dir from the words beside the flags.

        A word is the name of a data set, such as digits, a folder, or a CSV file.

        Raises:
            ValueError: if there is no source, more than one, or it contradicts the flags.
        """
        if len(words) > 1:
            raise ValueError(f"One source may be given. Received: {' '.join(words)}")
        if not words:
            if self.dataset:
                return self
            raise ValueError(
                "A source must be given: a folder of images, a CSV file, or the name of a data set "
                "such as digits. Received: none"
            )
        if self.dataset:
            raise ValueError(
                "Either a source must be given, or --dataset. "
                f"Received: {shown(words[0])} and dataset={shown(self.dataset)}"
            )
        [source] = words
        kind = _kind(source)
        if kind is None:
            return dataclasses.replace(self, dataset=source)
        if self.data_dir:
            raise ValueError(
                "data_dir is for data sets with a name. "
                f"Received: {shown(source)} and data_dir={shown(self.data_dir)}"
            )
        return dataclasses.replace(self, dataset=kind, data_dir=source)


def _kind(source):
    """The data set that a source is of, "folder" or "csv"; None for a name."""
    path = os.path.expanduser(source)
    if source.lower().endswith(TABLE_SUFFIXES):
        return "csv"
    is_name = source in tfds_source.OWN_NAMES
    if "://" in source or (not is_name and os.path.isdir(path)):
        return "folder"
    # "mnist" is a name and "photos/mine" is a folder, which may not be there; the names of
    # tensorflow-datasets have a slash before a configuration, and no dot.
    return "folder" if source.startswith((".", "/", "~")) else None
