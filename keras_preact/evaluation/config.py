"""The flags of evaluate and their rules."""

import dataclasses
import os

from keras_preact.data import splitting
from keras_preact.evaluation.bootstrap import RESAMPLES
from keras_preact.evaluation.calibration import BINS
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.support.text import shown
from keras_preact.training.config import CHECKPOINTS

BATCH_SIZE = 128
SPLITS = ("train", "val", "test", "all")
CROPS = (1, 10)
# Mistakes on the page, and the same number of uncertain images.
SHOWN_IMAGES = 16


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """One evaluation. The fields are flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule, or values contradict each other.
    """

    model: str | None = option(
        "model", "a run, net.keras, the folder of a SavedModel's version, or net.tflite"
    )
    compare: str | None = option("model", "another model of any kind, on the same images")
    checkpoint: str = option("model", "of runs: which checkpoint", "newest", CHECKPOINTS)
    preprocessing: str | None = option(
        "model", "preprocessing.json, for a model that carries no preprocessing"
    )

    dataset: str | None = option(
        "data",
        "digits, synthetic, folder, csv, or a name in tensorflow-datasets; default: the run's, or "
        "folder or csv by data_dir",
    )
    data_dir: str | None = option(
        "data", "folder of images, CSV file, or folder of tensorflow-datasets; default: the run's"
    )
    split: str | None = option(
        "data",
        "which images; default: val, and all of a folder that is not divided and not the run's",
        None,
        SPLITS,
    )
    divide: tuple[int, ...] | None = option(
        "data",
        "percentages of train, val and test, as train's --split, where a folder or a CSV file "
        "leaves the split open; default: the run's, else 80,10,10",
    )
    skip_bad_images: bool = option(
        "data",
        "end with code 0 though files could not be read; default: as the run was trained",
        False,
    )

    image_size: int | None = option(
        "size", "height and width of the crop in pixels; default: the model's"
    )
    resize: int | None = option(
        "size",
        "shorter side in pixels before the crop; default: with image_size that size, as in the "
        "paper, otherwise the model's",
    )
    crops: int = option(
        "size", "1: the centre; 10: corners, centre and their mirror images, averaged", 1
    )
    batch_size: int = option("size", "crops computed at a time", BATCH_SIZE)

    bins: int = option("numbers", "of confidence, for the calibration error", BINS)
    resamples: int = option("numbers", "of the bootstrap, for intervals; 0: none", RESAMPLES)
    seed: int = option("numbers", "of the bootstrap, and of the halves for what is fitted", 0)

    output: str | None = option(
        "output", "folder of the report; default: RUN/evaluation/SPLIT, or evaluation"
    )
    overwrite: bool = option("output", "replace an earlier report there", False)
    shown_images: int = option(
        "output",
        "images of mistakes on the page, and as many of the least certain; 0: none",
        SHOWN_IMAGES,
    )
    grad_cam: bool = option("output", "show with each image where the class is seen", True)
    probabilities: bool = option(
        "output", "write probabilities.npz, the probability of each class of each image", False
    )

    def __post_init__(self):
        for name in ("preprocessing", "data_dir"):
            if (path := getattr(self, name)) is not None:
                # A shell leaves ~ as it is in --data_dir=~/photos.
                object.__setattr__(self, name, os.path.expanduser(path))
        if self.split and self.split[0].isdigit():
            raise ValueError(
                "split must name the images to evaluate on, train, val, test or all; divide takes "
                f"the percentages. Received: split={shown(self.split)}"
            )
        options.check_choices(self)
        options.check_range(self, ("batch_size", "bins", "image_size", "resize"), least=1)
        options.check_range(self, ("resamples", "seed", "shown_images"), least=0)
        if not self.model:
            raise ValueError(
                "model must be given: a run, net.keras, the folder of a SavedModel's version, or "
                "net.tflite. Received: model=None"
            )
        if self.crops not in CROPS:
            raise ValueError(f"crops must be 1 or 10. Received: crops={self.crops}")
        if self.resize and self.image_size and self.resize < self.image_size:
            raise ValueError(
                "resize must be at least image_size, the size of the crop. "
                f"Received: resize={self.resize}, image_size={self.image_size}"
            )
        if self.divide is not None:
            splitting.check(self.divide)
