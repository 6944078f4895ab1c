"""CIFAR nets of the first paper as in akamaster's pytorch_resnet_cifar10, and those like it."""

import re

from keras_preact.layers import Preprocessing
from keras_preact.models.foreign import scheme
from keras_preact.models.foreign.scheme import Format, Place, RefusedError
from keras_preact.models.foreign.torchvision import MEAN, STD

_OUTSIDE = {"stem_conv": "conv1", "stem_bn": "bn1"}
# Nets like akamaster's have the second.
CLASSIFIERS = ("linear", "fc")
_PROJECTION = {"projection_conv": "0", "projection_bn": "1"}


def _prefix(place: Place, found) -> str:
    if place.name == "logits":
        return next((name for name in CLASSIFIERS if f"{name}.weight" in found), CLASSIFIERS[0])
    if place.unit is None:
        return _OUTSIDE[place.name]
    layer = place.name
    if layer in _PROJECTION:
        kind = "downsample" if any(".downsample." in name for name in found) else "shortcut"
        layer = f"{kind}.{_PROJECTION[layer]}"
    return f"layer{place.stage}.{place.number - 1}.{layer}"


def _arguments(depth, tensors):
    has_projections = any(re.search(r"\.(shortcut|downsample)\.", name) for name in tensors)
    projection = "convolution" if has_projections else "zero_pad"
    return {"unit": "original", "projection": projection, "layout": "paper"}


def preprocessing(depth: int) -> Preprocessing:
    """Of the published weights: ImageNet's mean and deviation, whole CIFAR images."""
    return Preprocessing((32, 32, 3), MEAN, STD, 1.0, "bilinear")


def _refuse(tensors):
    if any(name.endswith(".conv3.weight") for name in tensors):
        raise RefusedError(
            "The format akamaster takes CIFAR nets of basic units. Received: bottlenecks, some of "
            "which stride on the first 1x1 convolution and some on the 3x3, with equal shapes"
        )
    kernel = tensors["conv1.weight"].shape
    if kernel[:1] != (16,):
        raise RefusedError(
            "The format akamaster takes CIFAR nets of 16, 32 and 64 filters. Received: a net "
            f"whose first kernel has the shape {kernel}"
        )


FORMAT = Format(
    name="akamaster",
    title="a CIFAR ResNet in the style of akamaster",
    marks=("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer3.0.conv1.weight"),
    unit_pattern=re.compile(r"layer(\d+)\.(\d+)\."),
    first_stage=1,
    first_unit=0,
    separator=".",
    variables=scheme.TORCH,
    prefix=_prefix,
    arguments=_arguments,
    preprocessing=preprocessing,
    classifiers=CLASSIFIERS,
    stem="cifar",
    refuse=_refuse,
)
