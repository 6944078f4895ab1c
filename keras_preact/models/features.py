"""Features from inside a network: by stage, unit or stride, raw or pre-activated, dilated."""

import re
from collections.abc import Sequence

import keras

from keras_preact.layers import ResidualUnit
from keras_preact.models.network import Network
from keras_preact.support.choices import one_of

PREACTIVATED = ":preactivated"
_UNIT = re.compile(r"(stage\d+)_unit\d+")
# Divisible by the stride of any network here.
_PROBE_PIXELS = 2**12


def feature_extractor(
    model: keras.Model, taps: Sequence[str], *, output_stride: int | None = None
) -> keras.Model:
    """A model from images to the features at some places of a network.

    | tap | the signal |
    |---|---|
    | `stem` | that enters the first unit |
    | `stage2` | that leaves the last unit of a stage |
    | `stage2_unit3` | that leaves a unit |
    | `stride8` | the last one with 8 image pixels between its pixels |

    A tap is the raw stream of signals, x in x + F(x). With `:preactivated` behind it, as in
    `stage2:preactivated`, it has passed the BN and ReLU with which the next unit, or the head,
    reads it: the features that classifiers and detectors of pre-activation nets take.

    The extractor shares layers and variables with the network, so training one changes the
    other. With output_stride it has copies: the last strides become dilations, as in "Rethinking
    Atrous Convolution for Semantic Image Segmentation" (Chen et al., 2017). Its features at every
    stride-th pixel then are those of the network.

    Args:
        model: of a builder, with or without its top.
        taps: see above; each once.
        output_stride: the largest number of image pixels between two pixels of features;
            default: the network's own, 32 or 4.

    Returns:
        A `keras.Model` from the network's input to a dictionary of features (batch, height, width,
        channels) by tap.

    Raises:
        ValueError: if the model has no residual units named as the builders do, a tap is unknown
            or given twice, units have no pre-activation, or no stride can become output_stride.
    """
    _units(model)
    if output_stride is not None:
        model = _dilated(model, output_stride)
    places = _places(model)
    taps = list(taps)
    if not taps or len(set(taps)) < len(taps):
        raise ValueError(f"taps must be one or more, each once. Received: taps={taps}")
    outputs = {tap: _tapped(model, places, tap) for tap in taps}
    extractor = Network(model.input, outputs, name=f"{model.name}_features")
    extractor.preprocessing = getattr(model, "preprocessing", None)
    return extractor


def _units(model):
    units = [layer for layer in model.layers if _UNIT.fullmatch(layer.name)]
    if not units:
        raise ValueError(
            "model must have residual units named stage1_unit1 and so on, as the builders of "
            f"keras_preact name them. Received: {model.name}, which has none"
        )
    return units


def _places(model):
    """The layer whose output is the raw signal, by tap."""
    units, strides = _units(model), _strides(model)
    before = model.layers[model.layers.index(units[0]) - 1]
    places = {"stem": before, f"stride{strides[before.name]}": before}
    for unit in units:
        # Later units take the place of earlier ones.
        stage = _UNIT.fullmatch(unit.name)[1]
        for tap in (unit.name, stage, f"stride{strides[unit.name]}"):
            places[tap] = unit
    return places


def _strides(model):
    """Image pixels between two pixels of output, by layer up to the last unit."""
    shape, strides = (1, _PROBE_PIXELS, _PROBE_PIXELS, model.input_shape[-1]), {}
    for layer in model.layers[: model.layers.index(_units(model)[-1]) + 1]:
        if not isinstance(layer, keras.layers.InputLayer):
            shape = layer.compute_output_shape(shape)
        strides[layer.name] = _PROBE_PIXELS // shape[1]
    return strides


def _tapped(model, places, tap):
    name = tap.removesuffix(PREACTIVATED)
    place = places[one_of("tap", name, places)]
    if name == tap:
        return place.output
    following = model.layers[model.layers.index(place) + 1 :]
    reader = next(iter(following), None)
    if isinstance(reader, ResidualUnit) and reader.preactivation:
        return _preactivated(reader, place.output)
    head = [layer for layer in following if layer.name in ("head_bn", "head_relu")]
    if head and reader is head[0]:
        return head[-1].output
    raise ValueError(
        f"{PREACTIVATED} needs a BN or ReLU before the convolutions that read the signal, as "
        f"units of full_preactivation have. Received: {tap!r}, which "
        f"{reader.name if reader else 'nothing'} reads"
    )


def _preactivated(unit, x):
    """The signal as a unit reads it, by layers of their own on the unit's variables."""
    for operation, layer in zip(unit.plan.preactivation, unit.preactivation, strict=True):
        name = f"{unit.name}_{operation.name}"
        if operation.kind == "relu":
            x = keras.layers.ReLU(name=name, dtype=unit.dtype_policy)(x)
            continue
        # A layer inside of two others would be saved in one place, and missed in the other.
        copy = type(layer).from_config({**layer.get_config(), "name": name})
        for variable in ("gamma", "beta", "moving_mean", "moving_variance"):
            setattr(copy, variable, getattr(layer, variable))
        copy.built = True
        x = copy(x)
    return x


def _dilated(model, output_stride):
    """A copy of the network in which strides beyond output_stride are dilations."""
    strides, units = _strides(model), _units(model)
    before = model.layers[model.layers.index(units[0]) - 1]
    allowed = sorted({strides[layer.name] for layer in (before, *units)})
    if output_stride not in allowed:
        raise ValueError(
            f"output_stride must be one of {', '.join(map(str, allowed))}. "
            f"Received: output_stride={output_stride}"
        )
    changes, dilation = {}, 1
    for unit in units:
        if type(unit) is not ResidualUnit:
            raise ValueError(
                "output_stride is for units of keras_preact.layers.ResidualUnit alone, whose "
                f"kernels can be dilated. Received: {unit.name}, a {type(unit).__name__}"
            )
        first = dilation
        if strides[unit.name] > output_stride and unit.strides > 1:
            dilation *= unit.strides
        if dilation > 1:
            unstrided = strides[unit.name] > output_stride
            changes[unit.name] = {
                "strides": 1 if unstrided else unit.strides,
                "dilation_rate": (first, dilation),
            }

    def clone(layer):
        config = {**layer.get_config(), **changes.get(layer.name, {})}
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    copy.preprocessing = getattr(model, "preprocessing", None)
    return copy
