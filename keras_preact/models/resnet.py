"""Builders of residual networks as functional Keras models."""

import collections
import contextlib
import os
from collections.abc import Callable, Sequence

import keras
from keras.src.backend.common import global_state

from keras_preact.layers import (
    ORDERS,
    ActivationOrder,
    ResidualUnit,
    Shortcut,
    activation_order,
    grouped,
    shortcuts,
)
from keras_preact.layers.quick_variables import quick_variables
from keras_preact.layers.residual_unit import make_layer
from keras_preact.layers.stochastic_depth import check_rate
from keras_preact.models import architectures
from keras_preact.models.network import Network, saved_choice
from keras_preact.support.choices import one_of

UnitFactory = Callable[..., keras.layers.Layer]

POOLING = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
}

# Keras' own name for its numbers of names.
_COUNTS = "object_name_uids"
WEIGHTS = (".weights.h5", ".keras", ".safetensors")


def ResNetV2(  # noqa: N802 - named as in keras.applications
    depth: int,
    *,
    include_top: bool = True,
    weights: str | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = None,
    stem: str | None = None,
    block: str | None = None,
    unit: str | ActivationOrder | UnitFactory = "full_preactivation",
    shortcut: str | Shortcut = "identity",
    projection: str | None = None,
    width_multiplier: float = 1.0,
    stochastic_depth_rate: float = 0.0,
    layout: str = "paper",
    name: str | None = None,
) -> Network:
    """A pre-activation residual network.

    `ResNetV2(depth=164)` is the paper's net for CIFAR-10, `ResNetV2(depth=50)` the
    one for ImageNet. Layers are named `stem_conv`, `stage2_unit1`, `head_bn`,
    `logits`; stages and units count from 1.

    Args:
        depth: 18, 34, 50, 101, 152, 200 (ImageNet); 6n+2, 9n+2, 3n+2 (CIFAR nets of
            basic, bottleneck and one-layer units).
        include_top: whether global average pooling and the classifier follow.
        weights: None for random ones, or the path of a `.weights.h5`, `.keras` or
            `.safetensors` file of a network of the same arguments; another network is refused
            where the file records its own. Without the top, the file's classifier is left out.
        input_tensor: a Keras tensor to use as the input.
        input_shape: (height, width, channels); height and width may be None. By
            default (32, 32, 3) with the CIFAR stem, (224, 224, 3) with ImageNet's.
        pooling: without the top, "avg" or "max" for pooled features, None for the
            feature map.
        classes: number of classes. By default 10 with the CIFAR stem, 1000 with
            ImageNet's.
        classifier_activation: None returns logits; "softmax", for instance,
            probabilities.
        stem: "cifar" or "imagenet". By default the depth decides.
        block: "basic", "bottleneck" or "single". By default the depth decides.
        unit: a name in `keras_preact.layers.ORDERS`; an `ActivationOrder`; or a
            factory, called as `unit(filters=, strides=, first_in_network=, name=)`
            for each unit, that returns a Keras layer from and to images (batch, height,
            width, channels). Stem and head then follow the layers' attribute `order`,
            "full_preactivation" where they have none.
        shortcut: a name in `keras_preact.layers.SHORTCUTS`, or a `Shortcut`, of which
            each unit gets a copy.
        projection: "convolution" or "zero_pad". By default zero_pad in CIFAR nets of
            basic and single units, as in the papers.
        width_multiplier: multiplies the filters of every convolution.
        stochastic_depth_rate: the probability with which an image skips the residual of
            the last unit in training; that of unit l of L is l / L of it, the linear
            decay of "Deep Networks with Stochastic Depth", equation (4), with 1 - p_L
            as the rate. Inference is the same at any rate.
        layout: "paper"; "timm", whose first shortcut starts from the raw signal; or "keras",
            as in keras.applications: the last unit of a stage has the stride, its shortcut
            pools, and convolutions before an addition have biases. See
            `keras_preact.layers.Layout`.
        name: the model's name.

    Returns:
        A `Network`, a functional `keras.Model`, from (batch, height, width, channels) to
        float32 logits (batch, classes), or as include_top and pooling say.

    Raises:
        ValueError: if an argument is outside its rule, or arguments contradict.

    Source: "Identity Mappings in Deep Residual Networks", figures 1, 2, 4, appendix.
    """
    architecture = architectures.resolve(depth, stem, block, width_multiplier, layout)
    classes = architecture.classes(classes)
    _check_weights(weights)
    if pooling is not None:
        one_of("pooling", pooling, POOLING)
    rate, names = stochastic_depth_rate, _Names()
    if isinstance(unit, str | ActivationOrder):
        arguments = {
            "depth": depth,
            "stem": architecture.stem,
            "block": architecture.block,
            "unit": saved_choice(unit),
            "shortcut": saved_choice(shortcut),
            "projection": projection,
            "width_multiplier": width_multiplier,
            "stochastic_depth_rate": rate,
            "layout": layout,
        }
        order = activation_order.get(unit)
        units = _residual_units(architecture, order, shortcut, projection, rate, names)
    else:
        units = _units_of_factory(architecture, unit, shortcut, projection, rate, names)
        arguments = None
        # The layers of a factory may say which order stem and head should follow.
        order = activation_order.get(getattr(units[0], "order", "full_preactivation"))

    inputs = _inputs(input_tensor, input_shape or architecture.default_input_shape)
    with quick_variables():
        x = _run(architecture.stem_operations(order), inputs)
        _check_formats(units)
        for layer in units:
            with names.of(layer.name):
                x = layer(x)
        _check_formats(units)  # of layers that units make when they are built
        _check_paths(units)
        if arguments is None:
            for layer in units:
                grouped.use_in_keras_layers(layer)
        x = _run(architecture.head_operations(order), x)
        if include_top:
            x = _classify(x, classes, classifier_activation)
        elif pooling:
            x = _pool(x, pooling)

    name = name or f"resnet{depth}"
    model = Network(_source(inputs), x, name=name, arguments=arguments)
    if weights is not None:
        # It needs these builders.
        from keras_preact.models.foreign import loading

        loading.load_weights(model, os.fspath(weights))
    return model


def ResNet(depth: int, *, unit="original", **arguments) -> keras.Model:  # noqa: N802
    """The residual network of the first paper, activated after the addition.

    `ResNetV2` with `unit="original"` as default; takes the same arguments.
    """
    return ResNetV2(depth, unit=unit, **arguments)


def PlainNet(depth: int, **arguments) -> keras.Model:  # noqa: N802
    """A `ResNet` without shortcuts, for the degradation experiment of the first paper.

    Takes the arguments of `ResNet` except shortcut and projection.

    Raises:
        ValueError: if shortcut or projection is given, or stochastic_depth_rate is not 0.
    """
    given = sorted({"shortcut", "projection"} & set(arguments))
    if given:
        raise ValueError(f"PlainNet has neither shortcut nor projection. Received: {given}")
    return ResNet(depth, shortcut="none", **arguments)


def _residual_units(architecture, order, shortcut, projection, rate, names):
    # Each unit checks its own rate; an error should name the network's.
    check_rate(rate, shortcuts.get(shortcut))
    kind = architecture.unit_kind(order, projection)
    units, plans = [], list(architecture.units(kind))
    for number, plan in enumerate(plans, 1):
        with names.of(plan.name), keras.name_scope(plan.name):
            unit = ResidualUnit(
                plan.filters,
                plan.strides,
                block=kind.block,
                order=order,
                shortcut=shortcut,
                projection=kind.projection,
                first_in_network=plan.first_in_network,
                strided_convolution=kind.strided_convolution,
                layout=kind.layout,
                stochastic_depth_rate=rate * (number / len(plans)),
                name=plan.name,
            )
        units.append(unit)
    return units


def _units_of_factory(architecture, factory, shortcut, projection, rate, names):
    if not callable(factory):
        raise ValueError(
            f"unit must be one of {', '.join(ORDERS)}, an ActivationOrder, or a function that "
            f"returns a layer. Received: unit={factory!r}"
        )
    layout = architecture.layout
    if projection is not None or shortcut != "identity" or rate or layout != "paper":
        raise ValueError(
            "A unit factory decides on its shortcut, projection, stochastic depth and layout "
            f"itself. Received: shortcut={shortcut!r}, projection={projection!r}, "
            f"stochastic_depth_rate={rate}, layout={layout!r}"
        )
    units = []
    for plan in architecture.units(architecture.unit_kind()):
        given = {"filters": plan.filters, "strides": plan.strides, "name": plan.name}
        with names.of(plan.name), keras.name_scope(plan.name):
            unit = factory(first_in_network=plan.first_in_network, **given)
        if getattr(unit, "name", None) != plan.name or not isinstance(unit, keras.layers.Layer):
            raise ValueError(
                "A unit factory must return a Keras layer of the name that it is given, "
                f"{plan.name!r}. Received: {unit!r} from {factory!r}"
            )
        units.append(unit)
    return units


class _Names:
    """Lets Keras number the parts of a unit from the unit's first.

    It numbers the parts that have no name of their own through all networks of a process; the
    variables of a checkpoint would then have other names in the next process.
    """

    def __init__(self):
        self._counts = collections.defaultdict(lambda: collections.defaultdict(int))

    @contextlib.contextmanager
    def of(self, unit):
        """A context for making and building the parts of a unit, by its name."""
        before = global_state.get_global_attribute(_COUNTS)
        global_state.set_global_attribute(_COUNTS, self._counts[unit])
        try:
            yield
        finally:
            global_state.set_global_attribute(_COUNTS, before)


def _check_paths(units):
    """Refuses parts of one name, whose variables a checkpoint could not tell apart."""
    for unit in units:
        counts = collections.Counter(variable.path for variable in unit.variables)
        if twice := [path for path, count in counts.items() if count > 1]:
            raise ValueError(
                "The parts of a unit must have different names, or none, as checkpoints tell them "
                f"apart by name. Received: {len(twice)} variables twice, such as {twice[0]}"
            )


def _check_formats(units):
    """Refuses Keras layers inside of units that have taken over a global channels_first."""
    if keras.config.image_data_format() == "channels_last":
        return
    for unit in units:
        for layer in unit._flatten_layers():
            if getattr(layer, "data_format", "channels_last") == "channels_first":
                raise ValueError(
                    "The layers of a unit factory must have data_format='channels_last', as "
                    "images are (batch, height, width, channels) here; Keras' global "
                    "image_data_format is channels_first. Received: data_format="
                    f"'channels_first' of {type(layer).__name__} {layer.name!r} in {unit.name}"
                )


def _inputs(input_tensor, input_shape):
    if input_tensor is not None:
        return input_tensor
    sizes_are_valid = len(input_shape) == 3 and all(
        size is None or (isinstance(size, int) and size > 0) for size in input_shape
    )
    if not sizes_are_valid or input_shape[-1] is None:
        raise ValueError(
            "input_shape must be (height, width, channels), each a whole number above 0; "
            f"height and width may be None. Received: input_shape={tuple(input_shape)}"
        )
    return keras.Input(tuple(input_shape), name="images")


def _run(operations, x):
    for operation in operations:
        x = make_layer(operation)(x)
    return x


def _pool(x, pooling):
    # Not Keras' global format, under which the axes of these images would be other ones.
    options = {"data_format": "channels_last", "dtype": "float32"}
    return POOLING[pooling](name=f"{pooling}_pool", **options)(x)


def _classify(x, classes, classifier_activation):
    x = _pool(x, "avg")
    # U(-1/sqrt(in), 1/sqrt(in)), as in the authors' Torch code.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    x = keras.layers.Dense(classes, kernel_initializer=initializer, name="logits", dtype="float32")(
        x
    )
    if classifier_activation is None:
        return x
    return keras.layers.Activation(classifier_activation, name="predictions", dtype="float32")(x)


def _source(inputs):
    sources = keras.utils.get_source_inputs(inputs)
    return sources[0] if len(sources) == 1 else sources


def _check_weights(weights):
    if weights is not None and not str(weights).endswith(WEIGHTS):
        raise ValueError(
            "weights must be None or the path of a .weights.h5, .keras or .safetensors file; there "
            "are no published weights to download, and those of others are for "
            f"keras_preact.convert. Received: weights={str(weights)!r}"
        )
