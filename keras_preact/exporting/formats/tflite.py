"""TFLite files, for phones and microcontrollers, of built-in operations alone."""

import os
import re
import warnings

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from etils import epath

from keras_preact.support.choices import one_of
from keras_preact.support.errors import RunError

KINDS = ("float32", "float16", "dynamic", "int8")
SIGNATURE = "serving_default"

_UNSUPPORTED = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)


def convert(saved_model: epath.PathLike, kind: str, calibration_images: np.ndarray) -> bytes:
    """A TFLite file that computes what a SavedModel does.

    Its signature is that of the SavedModel; the batch stays free.

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
        calibration_images: uint8 (count, height, width, channels), from which int8 takes
            the range of each activation; the other kinds ignore them.

    Returns:
        The file. That of int8 takes the bytes of images as they are, and returns
        probabilities as uint8, in units of 1/256.

    Raises:
        ValueError: if there is no such kind.
        RunError: if the SavedModel has operations that TFLite lacks, or lacks in int8.
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
    _check_integer(file)
    return file


class LiteModel:
    """A file that `convert` made, to be called with images.

    Args:
        path: of the file.
        threads: to compute with; one by default.

    Raises:
        ValueError: if it is not a TFLite file, or one without the signature.
    """

    def __init__(self, path: epath.PathLike, threads: int | None = None):
        interpreter = Interpreter(os.fspath(path), num_threads=threads)
        self._run = interpreter.get_signature_runner(SIGNATURE)
        self._input_dtype = self._run.get_input_details()["images"]["dtype"]
        output = self._run.get_output_details()["probabilities"]
        self._quantization = output["quantization_parameters"]

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities, float32 (batch, classes), of a batch of any size.

        Args:
            images: uint8 (batch, height, width, channels).
        """
        # It allocates memory anew where the size of the batch is not that of the call before.
        output = self._run(images=images.astype(self._input_dtype))["probabilities"]
        if output.dtype == np.float32:
            return output
        steps = output - self._quantization["zero_points"]
        return (steps * self._quantization["scales"]).astype(np.float32)


def _calibrate(converter, images):
    """Makes a converter quantize everything, with the ranges that activations have on images."""
    images = images.copy()
    # The range of the input must be that of a byte, so that a byte is its own code.
    images[0].flat[:2] = 0, 255
    converter.representative_dataset = lambda: (
        {"images": image[None].astype(np.float32)} for image in images
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8


def _convert(converter):
    try:
        with warnings.catch_warnings():
            # The converter calibrates with it itself.
            warnings.filterwarnings("ignore", r"\s*Warning: tf\.lite\.Interpreter is deprecated")
            return converter.convert()
    except Exception as error:  # its class is not public
        lacking = ", ".join(_UNSUPPORTED.findall(str(error)))
        if not lacking:
            raise
        raise RunError(f"TFLite has no built-in operation for {lacking}.") from error


def _check_integer(file):
    """Refuses operations in float32, which the converter leaves where it knows no others."""
    model = schema.ModelT.InitFromPackedBuf(file)
    names = {code: name for name, code in vars(schema.BuiltinOperator).items()}
    lacking = {
        names[model.operatorCodes[operator.opcodeIndex].builtinCode]
        for graph in model.subgraphs
        for operator in graph.operators
        for output in operator.outputs
        if graph.tensors[output].type == schema.TensorType.FLOAT32
    }
    if lacking:
        # It puts one before each.
        lacking.discard("DEQUANTIZE")
        raise RunError(f"TFLite cannot compute in int8: {', '.join(sorted(lacking))}.")
