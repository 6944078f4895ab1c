"""The flags of export.py and their rules."""

import dataclasses
import math

from keras_preact.data.limits import MAX_IMAGE_PIXELS
from keras_preact.exporting.formats.int8 import ADDITIONS
from keras_preact.exporting.formats.tflite import KINDS
from keras_preact.exporting.graph.precision import PRECISIONS
from keras_preact.exporting.serving.server_files import (
    IMAGE,
    check_model_name,
    check_serving_image,
)
from keras_preact.support import options
from keras_preact.support.options import option
from keras_preact.training.config import CHECKPOINTS

# Formats of the files that `formats.weights` writes.
WEIGHTS = ("keras", "safetensors")


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """One export. The fields are export.py's flags; `metadata["help"]` explains them.

    Raises:
        ValueError: if a value is outside its rule, or neither or both of run_dir and model
            are given.
    """

    run_dir: str | None = option("export", "folder of the run to export")
    checkpoint: str = option("export", "which of its checkpoints", "newest", CHECKPOINTS)
    model: str | None = option("export", "a .keras file to export instead of a run")
    dataset: str | None = option(
        "export", "with --model: the data set to compare on; default: parts of two photographs"
    )
    data_dir: str | None = option("export", "folder of the images; default: as in training")
    image_size: int | None = option("export", "with --model: as in train.py")
    output_dir: str | None = option(
        "export", "folder to export to; default RUN_DIR/export, or the .keras file's name"
    )
    version: int | None = option("export", "number of this version; default: the next free one")

    formats: tuple[str, ...] = option(
        "files",
        "what to write, separated by commas",
        ("saved_model", "tflite"),
        ("saved_model", "tflite", *WEIGHTS),
    )
    tflite: tuple[str, ...] = option(
        "files", "TFLite files to write, separated by commas; empty for none", KINDS, KINDS
    )
    calibration_images: int = option("files", "training images that set the ranges of int8", 300)
    int8_additions: str = option(
        "files",
        "precision of the residual additions in the int8 file; auto: int8 if the file answers as "
        "float32 does, otherwise float for half of them or all",
        "auto",
        ADDITIONS,
    )
    saved_model_precision: str = option(
        "files", "precision that the SavedModel computes in", "float32", PRECISIONS
    )
    freeze: bool = option(
        "files", "store the SavedModel's weights as constants, not as variables", False
    )
    max_image_pixels: int = option(
        "files", "most pixels of an image for serving_bytes", MAX_IMAGE_PIXELS
    )
    model_name: str | None = option("files", "name on the server; default: such as resnet20")
    temperature: float | None = option(
        "files",
        "divides the logits, so that probabilities are calibrated; evaluate fits it; default: "
        "the model's own, or 1",
    )
    serving_image: str = option("files", "docker image of TensorFlow Serving", IMAGE)

    eval_images: int | None = option(
        "verification", "evaluation images to compare on, spread evenly; default: all"
    )
    float32_tolerance: float = option(
        "verification", "largest difference of a probability: SavedModel, float32", 1e-4
    )
    float16_tolerance: float = option("verification", "the same for float16", 1e-2)
    int8_loss_points: float = option(
        "verification",
        "points of accuracy that int8 and dynamic may lose, beyond sampling error",
        1.0,
    )
    saved_model_loss_points: float = option(
        "verification", "the same for a SavedModel in bfloat16 or float16", 1.0
    )
    saved_model_agreement_percent: float = option(
        "verification", "its least share of answers equal to the Keras model's", 95.0
    )

    def __post_init__(self):
        options.check_choices(self)
        self._check_source()
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ValueError(
                "formats must be one or more, each once. "
                f"Received: formats={','.join(self.formats)}"
            )
        if self.formats == ("tflite",) and not self.tflite:
            raise ValueError("formats=tflite needs a kind of file in tflite. Received: none")
        counts = ("image_size", "version", "calibration_images", "max_image_pixels", "eval_images")
        options.check_range(self, counts, least=1)
        tolerances = ("float32_tolerance", "float16_tolerance", "int8_loss_points")
        options.check_range(self, (*tolerances, "saved_model_loss_points"), least=0)
        options.check_range(self, ("saved_model_agreement_percent",), least=0, most=100)
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ValueError(
                f"temperature must be above 0 and finite. Received: temperature={self.temperature}"
            )
        if self.model_name is not None:
            check_model_name(self.model_name)
        check_serving_image(self.serving_image)

    @property
    def tflite_kinds(self) -> tuple[str, ...]:
        """The TFLite files to write."""
        return self.tflite if "tflite" in self.formats else ()

    @property
    def weights_kinds(self) -> tuple[str, ...]:
        """The files of weights to write."""
        return tuple(kind for kind in WEIGHTS if kind in self.formats)

    def _check_source(self):
        if bool(self.run_dir) == bool(self.model):
            raise ValueError(
                "Either run_dir must be given, the folder of a run that train.py made, or model, "
                f"a .keras file. Received: run_dir={self.run_dir!r}, model={self.model!r}"
            )
        if self.run_dir and (self.dataset or self.image_size):
            raise ValueError(
                "dataset and image_size are for model alone; a run knows its own. "
                f"Received: dataset={self.dataset!r}, image_size={self.image_size}"
            )
        if self.model and not self.model.endswith(".keras"):
            raise ValueError(f"model must be a .keras file. Received: model={self.model!r}")
