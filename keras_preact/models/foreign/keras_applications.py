"""The ResNetV2 nets of keras.applications: names, and their relatives of the first paper."""

import re

from keras_preact.layers import Preprocessing
from keras_preact.models.foreign import scheme
from keras_preact.models.foreign.scheme import Format, Place, RefusedError

DEPTHS = (50, 101, 152)
_OUTSIDE = {"stem_conv": "conv1_conv", "head_bn": "post_bn"}
# The second in the files of keras_applications, before Keras took it in.
CLASSIFIERS = ("predictions", "probs")
# Theirs counts a BN with the convolution before it, ours with the one behind it.
_IN_UNIT = {"preact_bn": "preact_bn", "bn2": "1_bn", "bn3": "2_bn", "projection_conv": "0_conv"}


def _prefix(place: Place, found) -> str:
    if place.name == "logits":
        return next((name for name in CLASSIFIERS if f"{name}/kernel" in found), CLASSIFIERS[0])
    if place.unit is None:
        return _OUTSIDE[place.name]
    layer = _IN_UNIT.get(place.name) or f"{place.name.removeprefix('conv')}_conv"
    return f"conv{place.stage + 1}_block{place.number}_{layer}"


def preprocessing(depth: int) -> Preprocessing:
    """Of the published weights: inputs from -1 to 1, plainly resized as Keras' users do."""
    half = (127.5,) * 3
    return Preprocessing((224, 224, 3), half, half, 1.0, "bilinear")


def _refuse(tensors):
    if "conv2_block1_preact_bn/gamma" in tensors:
        return
    raise RefusedError(
        "The format keras takes ResNet50V2, ResNet101V2 and ResNet152V2 of keras.applications. "
        "Received: a net of the first version, such as ResNet50, whose bottlenecks stride on the "
        "first 1x1 convolution; ours stride on the 3x3"
    )


FORMAT = Format(
    name="keras",
    title="keras.applications' ResNetV2",
    marks=("conv1_conv/kernel", "conv2_block1_1_conv/kernel"),
    unit_pattern=re.compile(r"conv(\d+)_block(\d+)_"),
    first_stage=2,
    first_unit=1,
    separator="/",
    variables=scheme.KERAS,
    prefix=_prefix,
    arguments=lambda depth, tensors: {"unit": "full_preactivation", "layout": "keras"},
    preprocessing=preprocessing,
    classifiers=CLASSIFIERS,
    layouts=lambda depth: ("keras",),
    refuse=_refuse,
)
