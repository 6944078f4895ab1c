"""TFLite files for phones and microcontrollers, of built-in operations only."""

import dataclasses
import os
import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from etils import epath

from keras_preact.exporting.formats import int8
from keras_preact.exporting.formats.int8 import Int8Report
from keras_preact.exporting.formats.saved_model import write_for_tflite
from keras_preact.exporting.formats.tflite_metadata import add_metadata
from keras_preact.exporting.graph.network import InferenceGraph
from keras_preact.layers import Preprocessing
from keras_preact.support.choices import one_of
from keras_preact.support.console import say
from keras_preact.support.errors import RunError
from keras_preact.support.files import remove
from keras_preact.support.machine import cores

KINDS = ("float32", "float16", "dynamic", "int8")
SIGNATURE = "serving_default"

_UNSUPPORTED = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Written:
    """TFLite files that were written.

    Args:
        impossible: why a file could not be made, by kind; empty if all were.
        int8: about the residual additions of the int8 file, if it has any.
    """

    impossible: Mapping[str, str]
    int8: Int8Report | None = None


def write(
    graph: InferenceGraph,
    preprocessing: Preprocessing,
    folder: epath.Path,
    model_name: str,
    kinds: Sequence[str],
    images: int8.Images | None = None,
    additions: str = "auto",
) -> Written:
    """Writes a TFLite file KIND.tflite of each kind, with metadata.

    Args:
        graph: of the network, from normalized images.
        preprocessing: from image files to the input, and from logits to probabilities.
        folder: a folder that does not exist yet.
        model_name: for the metadata, as in "resnet20 trained on digits".
        kinds: some of `KINDS`.
        images: for int8.
        additions: precision of the residual additions in int8, one of `int8.ADDITIONS`.
    """
    plain, impossible, report = folder / ".saved_model", {}, None
    folder.mkdir(parents=True)
    write_for_tflite(graph, preprocessing, plain)
    for kind in kinds:
        say(f"Converting to TFLite: {kind}")
        try:
            if kind == "int8":
                file, report = _convert_to_int8(plain, preprocessing, images, additions)
            else:
                file = convert(plain, kind)
        except RunError as error:
            impossible[kind] = str(error)
            continue
        description = f"{model_name}, {kind}"
        file = add_metadata(file, model_name.partition(" ")[0], description, preprocessing)
        (folder / f"{kind}.tflite").write_bytes(file)
    remove(plain)
    return Written(impossible, report)


def _convert_to_int8(saved_model, preprocessing, images, additions):
    return int8.convert(
        convert(saved_model, "float32"),
        lambda: convert(saved_model, "int8", images.calibration),
        lambda file: LiteModel(file, cores()).predict,
        images,
        additions,
        preprocessing.multi_label,
    )


def convert(
    saved_model: epath.PathLike, kind: str, calibration_images: np.ndarray | None = None
) -> bytes:
    """Returns a TFLite file that computes what a SavedModel does, with the same signature.

    The size of the batch stays free.

    | kind | weights | arithmetic | images |
    |---|---|---|---|
    | float32 | float32 | float32 | float32 |
    | float16 | float16 | float32 | float32 |
    | dynamic | int8 | int8 with the range of each batch, or float32 | float32 |
    | int8 | int8 for each channel | int8 | uint8 |

    Args:
        saved_model: a folder. Its signature `serving_default` maps `images`, float32
            (batch, height, width, channels) in 0 to 255, to `probabilities`, float32
            (batch, classes); it must have no variables.
        kind: one of `KINDS`.
        calibration_images: uint8 (count, height, width, channels). int8 takes the range of
            each activation from them; the other kinds ignore them.

    Returns:
        The file. An int8 file takes the bytes of images as they are and returns
        probabilities as uint8, in units of 1/256.

    Raises:
        ValueError: if there is no such kind.
        RunError: if the SavedModel has operations that TFLite lacks or has no int8 form of.
    """
    one_of("kind", kind, KINDS)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        os.fspath(saved_model), signature_keys=[SIGNATURE]
    )
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind != "int8":
        return _convert(converter)
    _calibrate(converter, calibration_images)
    file = _convert(converter)
    int8.check_integer(file)
    return file


class LiteModel:
    """A TFLite file made by `convert`, in LiteRT's interpreter.

    Args:
        file: its path or its contents.
        threads: number of threads; one by default.

    Raises:
        ValueError: if it is not a TFLite file or lacks the signature.

    Attributes:
        image_shape: (height, width, channels).
        classes: their number.
    """

    def __init__(self, file: epath.PathLike | bytes, threads: int | None = None):
        if isinstance(file, bytes):
            interpreter = Interpreter(model_content=file, num_threads=threads)
        else:
            interpreter = Interpreter(os.fspath(file), num_threads=threads)
        self._run = interpreter.get_signature_runner(SIGNATURE)
        images = self._run.get_input_details()["images"]
        output = self._run.get_output_details()["probabilities"]
        self.image_shape = tuple(map(int, images["shape"][1:]))
        self.classes = int(output["shape"][-1])
        self._input_dtype = images["dtype"]
        self._quantization = output["quantization_parameters"]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (batch, classes), of a batch of any size.

        Args:
            images: uint8 (batch, height, width, channels).
        """
        # The runner allocates memory again when the batch size changes.
        output = self._run(images=images.astype(self._input_dtype))["probabilities"]
        if output.dtype == np.float32:
            return output
        steps = output - self._quantization["zero_points"]
        return (steps * self._quantization["scales"]).astype(np.float32)


def _calibrate(converter, images):
    """Makes a converter quantize everything, with the ranges of activations on the images."""
    images = images.copy()
    # The input's range must be 0 to 255, so that each byte stands for itself.
    images[0].flat[:2] = 0, 255
    converter.representative_dataset = lambda: (
        {"images": image[None].astype(np.float32)} for image in images
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8


def _convert(converter):
    try:
        with warnings.catch_warnings():
            # The converter itself uses it to calibrate.
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            return converter.convert()
    except Exception as error:  # its class is not public
        lacking = ", ".join(_UNSUPPORTED.findall(str(error)))
        if not lacking:
            raise
        raise RunError(f"TFLite has no built-in operation for {lacking}.") from error
