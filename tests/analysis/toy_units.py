"""Residual units with known signals, and small networks of randomized units."""

import keras
import numpy as np

from keras_preact.layers import Taps
from keras_preact.models import ResNetV2

CLASSES = 5


class Toy(keras.layers.Layer):
    """relu(a x + b w x), or without the ReLU: h(x) = a x, F(x) = b w x with a fixed vector w.

    For images of three channels.

    Args:
        a: factor of the shortcut.
        b: factor of the residual function.
        relu: whether f is the ReLU.
        seed: of w, which is 1 for None.
        tells: whether the taps have shortcut_output.
        wrong_by: added to the residual in the taps alone, as a share of it.
    """

    def __init__(self, a, b, relu=False, seed=None, tells=True, wrong_by=0.0, **kwargs):
        super().__init__(**kwargs)
        self.a, self.b, self.relu = a, b, relu
        self.w = 1.0
        if seed is not None:
            self.w = np.random.default_rng(seed).normal(size=3).astype("float32")
        self.tells, self.wrong_by = tells, wrong_by

    def call(self, x, return_taps=False):
        shortcut, residual = self.a * x, self.b * self.w * x
        f = keras.ops.relu if self.relu else (lambda y: y)
        if not return_taps:
            return f(shortcut + residual)
        residual = residual * (1 + self.wrong_by)
        y = shortcut + residual
        left = f(shortcut) if self.tells else None
        return Taps(x, shortcut, residual, y, f(y), shortcut_output=left)


def chain_of(units, shape=(4, 4, 3)):
    """Images -> units -> global average pooling -> logits."""
    x = images = keras.Input(shape)
    for unit in units:
        x = unit(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return balanced(keras.Model(images, keras.layers.Dense(CLASSES)(x)))


def small_network(units=2, **options):
    """Three stages of basic units for 8 x 8 images in colour, with randomized parameters."""
    options = {"width_multiplier": 0.25, "input_shape": (8, 8, 3), "classes": CLASSES, **options}
    model = ResNetV2(2 + 6 * units, **options)
    rng = np.random.default_rng(1)
    for variable in model.variables:
        if variable.name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(size=variable.shape))
    return balanced(model)


def balanced(model):
    """Shifts a model's logits to 0 in the mean; otherwise one class would win on all images."""
    images = np.random.default_rng(2).normal(size=(60, *model.input.shape[1:]))
    bias = model.layers[-1].bias
    bias.assign(bias - np.mean(model(images), axis=0))
    return model
