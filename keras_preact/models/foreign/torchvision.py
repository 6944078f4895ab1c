"""torchvision's ResNets: names, and the relatives that are other networks."""

import re

from keras_preact.layers import Preprocessing
from keras_preact.models.foreign import scheme
from keras_preact.models.foreign.scheme import Format, Place, RefusedError

DEPTHS = (18, 34, 50, 101, 152)
_OUTSIDE = {"stem_conv": "conv1", "stem_bn": "bn1", "logits": "fc"}
_IN_UNIT = {"projection_conv": "downsample.0", "projection_bn": "downsample.1"}
# Of ImageNet, in 0 to 255.
MEAN = tuple(255 * value for value in (0.485, 0.456, 0.406))
STD = tuple(255 * value for value in (0.229, 0.224, 0.225))


def _prefix(place: Place, found) -> str:
    if place.unit is None:
        return _OUTSIDE[place.name]
    layer = _IN_UNIT.get(place.name, place.name)
    return f"layer{place.stage}.{place.number - 1}.{layer}"


def preprocessing(depth: int) -> Preprocessing:
    """Of the published weights, IMAGENET1K_V1: the shorter side to 256, a crop of 224."""
    return Preprocessing((224, 224, 3), MEAN, STD, 256 / 224, "bilinear")


def _refuse(tensors):
    shapes = {name: array.shape for name, array in tensors.items()}
    third = shapes.get("layer1.0.conv2.weight", ())
    is_bottleneck = "layer1.0.conv3.weight" in shapes
    if is_bottleneck and len(third) == 4 and third[:2] != (64, 64):
        kind = "a wide ResNet" if third[0] == third[1] else "a ResNeXt, with groups"
        raise RefusedError(
            "The format torchvision takes resnet18, resnet34, resnet50, resnet101 and resnet152. "
            f"Received: {kind}, whose 3x3 kernels in the first stage are {third}"
        )


FORMAT = Format(
    name="torchvision",
    title="torchvision's ResNet",
    marks=("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"),
    unit_pattern=re.compile(r"layer(\d+)\.(\d+)\."),
    first_stage=1,
    first_unit=0,
    separator=".",
    variables=scheme.TORCH,
    prefix=_prefix,
    arguments=lambda depth, tensors: {"unit": "original", "layout": "paper"},
    preprocessing=preprocessing,
    classifiers=("fc",),
    refuse=_refuse,
)
