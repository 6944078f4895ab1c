"""The flags of predict and their rules."""

import dataclasses
import os
import re

from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.text import shown
from keras_preact.training.config import CHECKPOINTS

BATCH_SIZE = 128
TOP_K = 5
SUFFIXES = (".csv", ".jsonl")
SHEET_SUFFIX = ".png"


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """One pass over image files. The fields are flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule.
    """

    model: str | None = option(
        "prediction", "a run, net.keras, the folder of a SavedModel's version, or net.tflite"
    )
    source: str | None = option(
        "prediction", "an image, a folder of images, or LIST.txt with a path a line"
    )
    checkpoint: str = option("prediction", "of a run: which checkpoint", "newest", CHECKPOINTS)
    preprocessing: str | None = option(
        "prediction", "preprocessing.json, for a model that carries no preprocessing"
    )
    batch_size: int = option("prediction", "images computed at a time", BATCH_SIZE)
    shard: str | None = option("prediction", "i/n: the i-th of n parts of the list, from 1/n")

    output: str | None = option("output", "x.csv or x.jsonl to write; default: lines are printed")
    top_k: int = option("output", "classes of each image, the likeliest first", TOP_K)
    threshold: float = option(
        "output", "least probability of a class; 0.5 is usual where images have several labels", 0.0
    )
    contact_sheet: str | None = option("output", "x.png to draw: some images and their answers")

    def __post_init__(self):
        for name in ("source", "preprocessing", "output", "contact_sheet"):
            if (path := getattr(self, name)) is not None:
                # A shell leaves ~ as it is in --output=~/x.csv.
                object.__setattr__(self, name, os.path.expanduser(path))
        options.check_choices(self)
        options.check_range(self, ("batch_size", "top_k"), least=1)
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold must be from 0 to 1. Received: threshold={self.threshold}")
        if not self.model:
            raise ValueError(
                "model must be given: a run, net.keras, the folder of a SavedModel's version, or "
                "net.tflite. Received: model=None"
            )
        self._check_suffix("output", SUFFIXES)
        self._check_suffix("contact_sheet", (SHEET_SUFFIX,))
        self.part(0)

    def _check_suffix(self, name, suffixes):
        path = getattr(self, name)
        if path is None:
            return
        if not path.endswith(suffixes) or "://" in path:
            raise ValueError(
                f"{name} must be a file {' or '.join(suffixes)} on this machine. "
                f"Received: {name}={shown(path)}"
            )

    def part(self, count: int) -> range:
        """Returns the indices, of `count` files in order, that this shard takes.

        Shards are consecutive: in their order they are the whole list.

        Raises:
            ValueError: if shard is not i/n with i from 1 to n.
        """
        if self.shard is None:
            return range(count)
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", self.shard)
        number, shards = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= shards:
            raise ValueError(
                "shard must be i/n, with i from 1 to n, as in 1/4 to 4/4. "
                f"Received: shard={shown(self.shard)}"
            )
        return range(count * (number - 1) // shards, count * number // shards)
