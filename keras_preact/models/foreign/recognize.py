"""Which format, and which of our networks, the variables of a file belong to."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_preact.models import architectures
from keras_preact.models.architectures import Architecture
from keras_preact.models.foreign import akamaster, keras_applications, timm, torchvision
from keras_preact.models.foreign.scheme import Format, RefusedError
from keras_preact.support.choices import one_of
from keras_preact.support.text import shown

FORMATS = {
    module.FORMAT.name: module.FORMAT
    for module in (timm, keras_applications, torchvision, akamaster)
}
# Marks of nets that users may take for one of these.
_RELATIVES = {
    "stem.conv1.norm.weight": "a net of detectron2, whose bottlenecks stride on the first 1x1",
    "conv1_w": "a net of Caffe2, whose bottlenecks stride on the first 1x1",
    "layer4.0.shortcut.0.weight": "a CIFAR net of four stages",
    "conv1.0.weight": "a net with a stem of three convolutions, as resnet50d of timm",
}


@dataclasses.dataclass(frozen=True)
class Recognized:
    """A network of ours that a foreign file stands for.

    Args:
        format: of the file.
        architecture: of the network.
        arguments: of `ResNetV2`.
        has_top: whether the file has a classifier.
    """

    format: Format
    architecture: Architecture
    arguments: dict[str, Any]
    has_top: bool


def is_foreign(names: Iterable[str]) -> bool:
    """Whether variables of these names are of one of the `FORMATS`."""
    return any(set(format.marks) <= set(names) for format in FORMATS.values())


def recognize(
    tensors: Mapping[str, np.ndarray], source: str, format: str | None = None
) -> Recognized:
    """Finds out what the variables of a file are.

    Args:
        tensors: of the file, by name.
        source: the file, for errors.
        format: a name in `FORMATS`; None for any.

    Raises:
        ValueError: if they are of no format, or of none of the nets that our builders make.
    """
    if format is not None:
        one_of("format", format, FORMATS)
    candidates = [each for each in FORMATS.values() if set(each.marks) <= set(tensors)]
    try:
        timm.refuse_bit_npz(tensors)
        if not candidates:
            raise RefusedError(_unknown(tensors))
        found = candidates[0]
        if format not in (None, found.name):
            raise RefusedError(
                f"The variables must be of the format {format}. Received: those of {found.title}, "
                f"format={found.name!r}"
            )
        found.refuse(tensors)
        depth = found.depth(tensors)
    except RefusedError as error:
        raise RefusedError(f"{error}. The file is {source}.") from None
    arguments = {"depth": depth, "stem": found.stem, **found.arguments(depth, tensors)}
    layout = arguments["layout"]
    architecture = architectures.resolve(depth, found.stem, layout=layout)
    has_top = any(f"{name}{found.separator}bias" in tensors for name in found.classifiers)
    return Recognized(found, architecture, arguments, has_top)


def _unknown(tensors):
    for mark, kind in _RELATIVES.items():
        if mark in tensors:
            return f"The variables must be of a net that our builders make. Received: {kind}"
    some = ", ".join(sorted(tensors)[:4])
    return (
        f"The variables must be of one of the formats {', '.join(FORMATS)}, or of a net of this "
        f"package. Received: {len(tensors):,} variables such as {shown(some)}"
    )
