"""Ranges of activations, which an int8 file divides into 255 steps."""

import warnings
from collections.abc import Container, Iterator, Mapping

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from keras_preact.exporting.formats.flatbuffer import is_constant, pack, unpack
from keras_preact.support.machine import cores

# Least and largest value of activations, by the name of their tensor.
Ranges = Mapping[str, tuple[float, float]]

_STEPS = 255
# Ranges are tried from a quarter of what was observed up to all of it.
_SHARES = np.linspace(0.25, 1, 16)
_SAMPLED_IMAGES, _SAMPLED_VALUES = 32, 2048


class Activations:
    """The activations of a TFLite file, for one image at a time.

    Args:
        file: the contents of the file, with one subgraph; its input is images (batch, height,
            width, channels).
        names: of the tensors to return; all activations by default.
    """

    def __init__(self, file: bytes, names: Container[str] | None = None):
        model = unpack(file)
        [graph] = model.subgraphs
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Warning: Enabling `experimental_preserve_all")
            self._interpreter = Interpreter(
                model_content=file,
                num_threads=cores(),
                experimental_preserve_all_tensors=True,
            )
        self._interpreter.allocate_tensors()
        [self._input] = self._interpreter.get_input_details()
        # The interpreter adds tensors of its own after those of the file.
        self._details = {
            detail["name"]: detail
            for detail in self._interpreter.get_tensor_details()
            if detail["index"] < len(graph.tensors)
            and not is_constant(model, graph.tensors[detail["index"]])
            and (names is None or detail["name"] in names)
        }

    def __call__(self, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yields name and value, float32, of each activation.

        Args:
            image: uint8 (height, width, channels).
        """
        self._interpreter.set_tensor(self._input["index"], image[None].astype(self._input["dtype"]))
        self._interpreter.invoke()
        for name, detail in self._details.items():
            value = self._interpreter.get_tensor(detail["index"])
            scale, zero_point = detail["quantization"]
            if value.dtype != np.float32:
                value = (value.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
            yield name, value


def observed(file: bytes, images: np.ndarray) -> Ranges:
    """Returns the least and the largest value of each activation of a float32 file.

    Args:
        file: the contents of a float32 TFLite file.
        images: uint8 (count, height, width, channels).
    """
    activations, ranges = Activations(file), {}
    for image in images:
        for name, value in activations(image):
            low, high = ranges.get(name, (np.inf, -np.inf))
            ranges[name] = min(low, float(value.min())), max(high, float(value.max()))
    return ranges


def least_error(file: bytes, images: np.ndarray, ranges: Ranges) -> Ranges:
    """Returns narrower ranges, whose int8 values have the least squared error.

    A few values far from all others make the steps of a whole range wide. Cutting such
    values off costs less than rounding all others to wide steps. Each range is multiplied by
    the factor with the least error on a sample of values, as TensorFlow's calibration method
    HISTOGRAM_MSE_BRUTEFORCE does.

    Args:
        file: the contents of a float32 TFLite file.
        images: uint8 (count, height, width, channels); at most 32 are used.
        ranges: the observed ones.
    """
    rng, positions, errors = np.random.default_rng(0), {}, {}
    activations = Activations(file, ranges)
    for image in images[:: -(-len(images) // _SAMPLED_IMAGES)]:
        for name, value in activations(image):
            if name not in positions:
                count = min(_SAMPLED_VALUES, value.size)
                positions[name] = rng.choice(value.size, count, replace=count < value.size)
            sample = value.ravel()[positions[name]]
            errors[name] = errors.get(name, 0) + _squared_errors(sample, *ranges[name])
    factors = {name: _SHARES[error.argmin()] for name, error in errors.items()}
    return {
        name: (factors[name] * low, factors[name] * high) for name, (low, high) in ranges.items()
    }


def _squared_errors(values, low, high):
    """Sums of squared errors of int8 values, one for each of the shares of the range."""
    low, high = min(low, 0) * _SHARES[:, None], max(high, 0) * _SHARES[:, None]
    step = np.maximum((high - low) / _STEPS, np.finfo(np.float32).tiny)
    rounded = np.clip(np.rint(values / step), np.rint(low / step), np.rint(high / step)) * step
    return np.square(rounded - values).sum(axis=1)


def quantize(file: bytes, ranges: Ranges, float_tensors: Container[str] = ()) -> bytes:
    """Returns an int8 file, from bytes of images to probabilities in units of 1/256.

    Args:
        file: the contents of a float32 TFLite file.
        ranges: of all its activations; the input's counts as 0 to 255.
        float_tensors: names of the tensors whose operations stay in float32.
    """
    # No public function quantizes with given ranges; requirements.txt pins TensorFlow.
    from tensorflow.lite.python.convert import mlir_quantize

    model = unpack(file)
    [graph] = model.subgraphs
    for position, tensor in enumerate(graph.tensors):
        if is_constant(model, tensor):
            continue
        low, high = (0.0, 255.0) if position in graph.inputs else ranges[tensor.name.decode()]
        tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
        tensor.quantization.min = np.array([low], np.float32)
        tensor.quantization.max = np.array([high], np.float32)
    return mlir_quantize(
        pack(model),
        input_data_type=tf.uint8,
        output_data_type=tf.uint8,
        denylisted_nodes=list(float_tensors),
    )
