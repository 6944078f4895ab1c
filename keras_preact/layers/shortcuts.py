"""Shortcuts: layers that own the sum y = h(x) + F(x).

A shortcut is called with the signal on the shortcut path and the residual, and
returns their sum, because exclusive gating scales the residual too; `parts` are the
two terms of that sum. Where a unit changes dimensions, x has been matched to the
residual (`projection=`) before it arrives here, and what a gate reads is this matched
signal.

Source: "Identity Mappings in Deep Residual Networks", section 3, figure 2, table 1.
"""

import inspect
from collections.abc import Iterable
from typing import Any

import keras

from keras_preact.layers.batch_norm import BatchNormalization
from keras_preact.layers.quick_layer import QuickLayer
from keras_preact.layers.spatial import Conv2D
from keras_preact.layers.taps import Factor
from keras_preact.support import own_code
from keras_preact.support.choices import one_of
from keras_preact.support.text import bare


class Shortcut(QuickLayer):
    """Base class: `call(x, residual)` returns the sum that leaves the addition.

    For a shortcut of your own, subclass it and define `parts`, or `call` alone. Where it
    changes dimensions itself, set `matches_dimensions = True`: the unit then puts no
    projection before it, and gives its strides to the constructor.

    Args:
        strides: pixels between outputs.

    Input shapes: x and residual, both (batch, height, width, channels). Output shape:
    that of residual.
    """

    matches_dimensions = False

    def __init__(self, *, strides: int = 1, **kwargs):
        super().__init__(**kwargs)
        self.strides = strides

    def build(self, x_shape, residual_shape):
        """Creates the variables; does nothing where a shortcut has none."""

    def call(self, x, residual, training=None):
        if type(self).parts is Shortcut.parts:
            raise NotImplementedError(
                f"{type(self).__name__} must define call(x, residual) or parts(x, residual)"
            )
        shortcut, residual = self.parts(x, residual, training=training)
        return shortcut + residual

    def parts(self, x, residual, training=None):
        """The two terms of the sum: h(x), and the residual as it enters.

        Where a subclass defines `call` alone, h(x) is what that returns for a residual of
        zeros, so it must not draw random numbers.
        """
        shortcut = self(x, keras.ops.zeros_like(residual))
        return shortcut, self(x, residual) - shortcut

    def factor(self, x, training=None) -> Factor | None:
        """The factor lambda of h(x) = lambda x in equation (8); None where it is not known."""
        return None

    def compute_output_shape(self, x_shape, residual_shape):
        return residual_shape


@keras.saving.register_keras_serializable(package="keras_preact")
class Identity(Shortcut):
    """x + F, equation (3). Any other shortcut is measured against it."""

    def parts(self, x, residual, training=None):
        return x, residual

    def factor(self, x, training=None):
        return _constant(1.0)


@keras.saving.register_keras_serializable(package="keras_preact")
class NoShortcut(Shortcut):
    """F alone: a plain network, for the degradation experiment of the first paper."""

    matches_dimensions = True

    def call(self, x, residual, training=None):
        return residual

    def parts(self, x, residual, training=None):
        return keras.ops.zeros_like(residual), residual

    def factor(self, x, training=None):
        return _constant(0.0)


@keras.saving.register_keras_serializable(package="keras_preact")
class ConstantScaling(Shortcut):
    """shortcut_scale * x + residual_scale * F: figure 2(b), equation (6)."""

    def __init__(self, shortcut_scale: float = 0.5, residual_scale: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        self.shortcut_scale = shortcut_scale
        self.residual_scale = residual_scale

    def parts(self, x, residual, training=None):
        return self.shortcut_scale * x, self.residual_scale * residual

    def factor(self, x, training=None):
        return _constant(self.shortcut_scale)

    def get_config(self):
        scales = {"shortcut_scale": self.shortcut_scale, "residual_scale": self.residual_scale}
        return {**super().get_config(), **scales}


class _Gating(Shortcut):
    """A gate g = sigmoid(1x1 convolution of x + bias), one value per pixel and channel."""

    def __init__(self, initial_bias: float = -6.0, **kwargs):
        super().__init__(**kwargs)
        self.initial_bias = initial_bias

    def build(self, x_shape, residual_shape):
        self.gate_conv = Conv2D(
            residual_shape[-1],
            1,
            use_bias=True,
            bias_initializer=keras.initializers.Constant(self.initial_bias),
            name="gate_conv",
            dtype=self.dtype_policy,
        )
        self.gate_conv.build(x_shape)

    def gate(self, x):
        """g(x), of the shape of x."""
        return keras.ops.sigmoid(self.gate_conv(x))

    def factor(self, x, training=None):
        values = 1 - keras.ops.cast(self.gate(x), "float32")
        return Factor(keras.ops.mean(values), values)

    def get_config(self):
        return {**super().get_config(), "initial_bias": self.initial_bias}


@keras.saving.register_keras_serializable(package="keras_preact")
class ExclusiveGating(_Gating):
    """(1 - g) * x + g * F: figure 2(c), as in highway networks."""

    def call(self, x, residual, training=None):
        # Rounds the sum in bfloat16, not the factor 1 - g, which has only 8 bits near 1.
        return x + self.gate(x) * (residual - x)

    def parts(self, x, residual, training=None):
        gate = self.gate(x)
        return x - gate * x, gate * residual


@keras.saving.register_keras_serializable(package="keras_preact")
class ShortcutOnlyGating(_Gating):
    """(1 - g) * x + F: figure 2(d)."""

    def parts(self, x, residual, training=None):
        return x - self.gate(x) * x, residual


@keras.saving.register_keras_serializable(package="keras_preact")
class Convolution(Shortcut):
    """conv1x1(x) + F: figure 2(e), option C of the first paper.

    Where dimensions change this convolution is the projection, as in option C.

    Args:
        batch_norm: whether BN follows the convolution. The paper does not say;
            bare by default, as in the authors' pre-activation code.
    """

    matches_dimensions = True

    def __init__(self, batch_norm: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.batch_norm = batch_norm

    def build(self, x_shape, residual_shape):
        self.conv = Conv2D(
            residual_shape[-1], 1, self.strides, name="conv", dtype=self.dtype_policy
        )
        self.conv.build(x_shape)
        self.bn = None
        if self.batch_norm:
            self.bn = BatchNormalization(name="bn", dtype=self.dtype_policy)
            self.bn.build(residual_shape)

    def parts(self, x, residual, training=None):
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x, training=training)
        return x, residual

    def factor(self, x, training=None):
        """The singular values of convolution and BN, and their root mean square.

        By it the norm of a gradient changes, averaged over all directions.
        """
        kernel = keras.ops.cast(self.conv.kernel, "float32")[0, 0]
        if self.bn is not None:
            y = keras.ops.cast(self.conv(x), "float32")
            by_batch = training and self.bn.trainable
            variance = keras.ops.var(y, axis=(0, 1, 2)) if by_batch else self.bn.moving_variance
            kernel = kernel * (self.bn.gamma * keras.ops.rsqrt(variance + self.bn.epsilon))
        values = keras.ops.linalg.svd(kernel, compute_uv=False)
        outputs = kernel.shape[-1]
        return Factor(keras.ops.sqrt(keras.ops.sum(values**2) / outputs), values)

    def get_config(self):
        return {**super().get_config(), "batch_norm": self.batch_norm}


@keras.saving.register_keras_serializable(package="keras_preact")
class Dropout(Shortcut):
    """dropout(x) + F: figure 2(f).

    Args:
        rate: the share of x set to zero in training.
        rescale: whether the kept values are divided by 1 - rate, as
            `keras.layers.Dropout` does. False by default: the paper speaks of a
            shortcut scaled by 1 - rate in expectation; inference then multiplies
            x by 1 - rate.
    """

    def __init__(self, rate: float = 0.5, rescale: bool = False, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1. Received: rate={rate}")
        self.rate = rate
        self.rescale = rescale

    def build(self, x_shape, residual_shape):
        # Here and not in the constructor, so that its state is named after the unit.
        self.seed_generator = keras.random.SeedGenerator(name="seed")

    def parts(self, x, residual, training=None):
        if training:
            x = keras.random.dropout(x, self.rate, seed=self.seed_generator)
        return (x if self.rescale else (1 - self.rate) * x), residual

    def factor(self, x, training=None):
        return _constant(1.0 if self.rescale else 1 - self.rate)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "rescale": self.rescale}


def _constant(value):
    return Factor(value, [value])


SHORTCUTS = {
    "identity": Identity,
    "constant_scaling": ConstantScaling,
    "exclusive_gating": ExclusiveGating,
    "shortcut_only_gating": ShortcutOnlyGating,
    "convolution": Convolution,
    "dropout": Dropout,
    "none": NoShortcut,
}

_OF_ANY_SHORTCUT = {
    name
    for layer_class in (keras.layers.Layer, Shortcut)
    for name in inspect.signature(layer_class.__init__).parameters
}


def get(identifier: str | Shortcut | dict, *, strides: int = 1, **arguments) -> Shortcut:
    """The shortcut that a name, a template or a saved configuration stands for.

    Always a new layer: units that share a template own their variables.

    Args:
        identifier: a key of `SHORTCUTS`, a `Shortcut`, or what
            `keras.saving.serialize_keras_object` made of one.
        strides: of the unit, for a shortcut that changes dimensions itself.
        **arguments: constructor arguments that replace the template's.

    Raises:
        ValueError: if the name is unknown or an argument is not the shortcut's.
        TypeError: if identifier is none of the three.
    """
    if isinstance(identifier, dict):
        identifier = deserialize(identifier)
    if isinstance(identifier, str):
        shortcut_class, template = SHORTCUTS[one_of("shortcut", identifier, SHORTCUTS)], None
        _check(shortcut_class, arguments, [*_own(shortcut_class), *_OF_ANY_SHORTCUT])
    elif isinstance(identifier, Shortcut):
        shortcut_class, template = type(identifier), identifier
    else:
        raise TypeError(
            f"shortcut must be one of {', '.join(SHORTCUTS)} or a keras_preact.layers.Shortcut. "
            f"Received: {identifier!r}"
        )
    if (template or shortcut_class).matches_dimensions:
        arguments["strides"] = strides
    if template is None:
        return shortcut_class(**arguments)
    return shortcut_class.from_config({**template.get_config(), **arguments})


def deserialize(config: dict[str, Any]) -> Any:
    """Returns what `keras.saving.serialize_keras_object` saved.

    Classes of code that has been loaded from a file are found by their module: those of two
    versions of a file have one name with Keras.
    """
    if (found := own_code.find_class(str(config.get("module")), config["class_name"])) is not None:
        return found.from_config(config["config"])
    return keras.saving.deserialize_keras_object(config)


def check_own_arguments(kind: str | type[Shortcut], arguments: Iterable[str]) -> None:
    """Raises ValueError where an argument is not the shortcut's own.

    Args:
        kind: a key of `SHORTCUTS`, or a class.
        arguments: their names.
    """
    is_name = isinstance(kind, str)
    shortcut_class = SHORTCUTS[one_of("shortcut", kind, SHORTCUTS)] if is_name else kind
    _check(shortcut_class, arguments, _own(shortcut_class))


def own_arguments(shortcut: Shortcut) -> dict[str, float]:
    """Returns the values of the arguments that other kinds of shortcut do not have."""
    config = shortcut.get_config()
    return {name: config[name] for name in _own(type(shortcut)) if name in config}


def _own(shortcut_class):
    parameters = inspect.signature(shortcut_class.__init__).parameters
    return [name for name in parameters if name not in _OF_ANY_SHORTCUT]


def _check(shortcut_class, arguments, allowed):
    unknown = [name for name in arguments if name not in allowed]
    if unknown:
        takes = " and ".join(_own(shortcut_class)) or "no arguments"
        raise ValueError(
            f"{shortcut_class.__name__} takes {takes}. Received: {bare(', '.join(unknown))}"
        )
