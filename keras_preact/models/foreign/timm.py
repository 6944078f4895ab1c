"""timm's resnetv2 nets with BN: names, and the relatives that are other networks."""

import dataclasses
import math
import re
from collections.abc import Mapping

import numpy as np

from keras_preact.layers import Preprocessing
from keras_preact.models.architectures import IMAGENET_DEPTHS
from keras_preact.models.foreign import scheme
from keras_preact.models.foreign.scheme import Format, Place, RefusedError

DEPTHS = (18, 34, 50, 101, 152)
_OUTSIDE = {"stem_conv": "stem.conv", "head_bn": "norm", "logits": "head.fc"}
_CLASSIFIER = "head.fc.weight"


def _prefix(place: Place, found) -> str:
    if place.unit is None:
        return _OUTSIDE[place.name]
    # norm1 to norm3 stand before conv1 to conv3.
    layer = place.name.replace("preact_bn", "bn1").replace("bn", "norm")
    layer = layer.replace("projection_conv", "downsample.conv")
    return f"stages.{place.stage - 1}.blocks.{place.number - 1}.{layer}"


def preprocessing(depth: int, pixels: int = 224) -> Preprocessing:
    """Of the published weights: mean and deviation 0.5, bicubic, a crop of 0.9 or 0.95."""
    crop = 0.9 if IMAGENET_DEPTHS[depth][0] == "basic" else 0.95
    half = (127.5,) * 3
    ratio = math.floor(pixels / crop) / pixels
    return Preprocessing((pixels, pixels, 3), half, half, ratio, "bicubic")


def _layouts(depth):
    # Bottleneck nets begin with a projection, so that the layouts do not differ.
    return ("timm",) if IMAGENET_DEPTHS[depth][0] == "basic" else ("timm", "paper")


def _refuse(tensors: Mapping[str, np.ndarray]) -> None:
    """Refuses BiT nets and other relatives, by the name that timm gives them."""
    names = set(tensors)
    units = [name for name in names if FORMAT.unit_pattern.match(name)]
    reasons = []
    if any(name.endswith((".norm1.v", ".norm2.v", ".norm1.tau")) for name in units):
        kind = "evos" if any(name.endswith(".v") for name in units) else "frn"
        reasons.append((f"_{kind}", "EvoNorm" if kind == "evos" else "filter response norm"))
    elif not any(name.endswith("norm1.running_mean") for name in units):
        is_deep = "stem.conv1.weight" in names
        reasons.append(("_gn" if is_deep else "_bit", "GroupNorm"))
        if not is_deep:
            reasons[-1] = ("_bit", "GroupNorm and standardized convolutions (BiT)")
    if "stem.conv1.weight" in names:
        tiered = tensors["stem.conv1.weight"].shape[:1] == (24,)
        reasons.append(("t" if tiered else "d", "a stem of three convolutions"))
    if "stem.norm.weight" in names or "stem.norm3.weight" in names:
        reasons.append(("", "an activation after its stem (preact=False)"))
    if any(".gn_proj." in name for name in names):
        reasons.append(("", "a normalized projection"))
    if not reasons:
        return
    stem = "".join(end for end, _ in reasons if end in ("d", "t"))
    norm = "".join(end for end, _ in reasons if end.startswith("_"))
    width = _width(tensors)
    times = f"x{width}" if norm == "_bit" else ""
    try:
        depth = f"{FORMAT.depth(tensors)}"
    except RefusedError:
        depth = ""
    raise RefusedError(
        f"The format timm takes the resnetv2 nets with BN: "
        f"{', '.join(f'resnetv2_{depth}' for depth in DEPTHS)}. Received: a net like "
        f"resnetv2_{depth}{times}{stem}{norm}, which has "
        f"{' and '.join(reason for _, reason in reasons)}: another network, though many of its "
        "weights have the same shapes"
    )


def _width(tensors):
    stem = tensors.get("stem.conv.weight")
    return max(1, stem.shape[0] // 64) if stem is not None and stem.ndim == 4 else 1


def refuse_bit_npz(names) -> None:
    """Refuses Google's own npz files of BiT nets, and those of the hybrid ViT."""
    if any("standardized_conv2d" in name or "root_block" in name for name in names):
        raise RefusedError(
            "The format timm takes nets with BN. Received: the variables of a BiT net, as in "
            "BiT-M-R50x1.npz, which has GroupNorm and standardized convolutions: another network"
        )


FORMAT = Format(
    name="timm",
    title="timm's resnetv2",
    marks=("stages.0.blocks.0.norm1.weight", "stages.0.blocks.0.conv1.weight"),
    unit_pattern=re.compile(r"stages\.(\d+)\.blocks\.(\d+)\."),
    first_stage=0,
    first_unit=0,
    separator=".",
    variables={
        **scheme.TORCH,
        # The classifier is a 1x1 convolution.
        "dense": {
            **scheme.TORCH["dense"],
            "kernel": dataclasses.replace(
                scheme.TORCH["dense"]["kernel"], to_theirs=lambda matrix: matrix.T[:, :, None, None]
            ),
        },
    },
    prefix=_prefix,
    arguments=lambda depth, tensors: {"unit": "full_preactivation", "layout": _layouts(depth)[0]},
    preprocessing=preprocessing,
    classifiers=("head.fc",),
    layouts=_layouts,
    refuse=_refuse,
)
