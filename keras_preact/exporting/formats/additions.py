"""Additions of the residual stream in a TFLite file, and what int8 loses at each of them."""

import collections
import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_preact.exporting.formats.flatbuffer import is_constant, operation, unpack
from keras_preact.exporting.formats.ranges import Activations

_UNIT = re.compile(r"stage\d+_unit\d+")
_IMAGE_RANK = 4
# With a constant, these operations scale, shift or rectify the channels of the stream.
_OF_CHANNELS = ("ADD", "MUL", "SUB", "RELU")
_LEAST_POWER = 1e-30


@dataclasses.dataclass(frozen=True)
class Addition:
    """A sum of two feature maps, as at the end of a residual unit.

    Args:
        unit: the name of its residual unit, or such as "addition 3" if it has none.
        stream: name of the tensor of the sum.
        residual: name of the tensor that the unit adds to the stream.
        readers: names of the tensors of what scales, shifts and rectifies the sum before
            the next convolution.
    """

    unit: str
    stream: str
    residual: str
    readers: tuple[str, ...]

    @property
    def tensors(self) -> tuple[str, ...]:
        """The results that are float32 where the addition is."""
        return (self.stream, *self.readers)


def find(file: bytes) -> list[Addition]:
    """Returns the additions of feature maps in a TFLite file, in their order.

    There are none in a file with control flow, whose activations cannot be read one by one.
    """
    model = unpack(file)
    if len(model.subgraphs) > 1:
        return []
    [graph] = model.subgraphs
    readers, sums = collections.defaultdict(list), []
    for operator in graph.operators:
        for position in operator.inputs:
            readers[position].append(operator)
        if operation(model, operator) == "ADD" and len(_activations(model, operator)) == 2:
            shape = graph.tensors[operator.outputs[0]].shape
            sums += [operator] if shape is not None and len(shape) == _IMAGE_RANK else []

    def name(position):
        return graph.tensors[position].name.decode()

    def after(position):
        for reader in readers[position]:
            if operation(model, reader) in _OF_CHANNELS and len(_activations(model, reader)) == 1:
                yield name(reader.outputs[0])
                yield from after(reader.outputs[0])

    streams = {operator.outputs[0] for operator in sums}
    found = []
    for number, operator in enumerate(sums, 1):
        [stream] = operator.outputs
        # A fused ReLU may be the next unit's; its name comes first.
        named = _UNIT.findall(name(stream))
        first, second = operator.inputs
        residual = first if second in streams else second
        unit = named[-1] if named else f"addition {number}"
        found.append(Addition(unit, name(stream), name(residual), tuple(after(stream))))
    return found


def _activations(model, operator):
    [graph] = model.subgraphs
    return [i for i in operator.inputs if i >= 0 and not is_constant(model, graph.tensors[i])]


@dataclasses.dataclass(frozen=True)
class Distortion:
    """How far the stream of an int8 file is from that of float32, at one addition.

    Signal-to-noise ratios are in decibels: the error is a tenth of the signal at 20, as large
    as the signal at 0.

    Args:
        unit: as in `Addition`.
        stream_decibels: of the sum, with all errors of the units before.
        residual_decibels: of what the unit adds, with these errors too.
        rounding_decibels: of what the unit adds, if rounding the sum to 8 bits were the only
            error; None for an addition in float32.
    """

    unit: str
    stream_decibels: float
    residual_decibels: float
    rounding_decibels: float | None


def distortions(
    exact: bytes, file: bytes, additions: Sequence[Addition], images: Iterable[np.ndarray]
) -> list[Distortion]:
    """Compares the residual stream of an int8 file with that of float32, addition by addition.

    Args:
        exact: the contents of the float32 file.
        file: the contents of the int8 file.
        additions: of the float32 file.
        images: uint8 (height, width, channels).
    """
    streams = {each.stream for each in additions}
    names = streams | {each.residual for each in additions}
    signal, noise, rounding = (collections.Counter() for _ in range(3))
    original, rounded = Activations(exact, names), Activations(file, names)
    steps = _steps(file, streams)
    for image in images:
        got = dict(rounded(image))
        for name, value in original(image):
            signal[name] += _power(value)
            noise[name] += _power(value - got[name]) if name in got else 0
            if name in steps:
                rounding[name] += _power(value - steps[name](value))
    return [
        Distortion(
            each.unit,
            _decibels(signal[each.stream], noise[each.stream]),
            _decibels(signal[each.residual], noise[each.residual]),
            _decibels(signal[each.residual], rounding[each.stream])
            if each.stream in steps
            else None,
        )
        for each in additions
    ]


def _steps(file, names):
    """Functions that round to the int8 values of tensors, by name; none for float32."""
    [graph] = unpack(file).subgraphs

    def function(quantization):
        [scale], [zero_point] = quantization.scale, quantization.zeroPoint
        return lambda x: np.clip(np.rint(x / scale), -128 - zero_point, 127 - zero_point) * scale

    return {
        tensor.name.decode(): function(tensor.quantization)
        for tensor in graph.tensors
        if tensor.name.decode() in names and tensor.type == schema.TensorType.INT8
    }


def _power(value):
    return float(np.square(value, dtype=np.float64).mean())


def _decibels(signal, noise):
    return 10 * float(np.log10(max(signal, _LEAST_POWER) / max(noise, _LEAST_POWER)))
