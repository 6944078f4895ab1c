"""What a residual unit is made of."""

from keras_preact.layers.activation_order import ORDERS, ActivationOrder
from keras_preact.layers.batch_norm import BatchNormalization
from keras_preact.layers.convolution import Conv2D
from keras_preact.layers.residual_unit import BLOCKS, ResidualUnit
from keras_preact.layers.shortcut_choice import SHORTCUTS
from keras_preact.layers.shortcuts import (
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    Shortcut,
    ShortcutOnlyGating,
)
from keras_preact.layers.taps import Factor, Taps
from keras_preact.layers.zero_pad import PROJECTIONS, ZeroPad

__all__ = [
    "BLOCKS",
    "ORDERS",
    "PROJECTIONS",
    "SHORTCUTS",
    "ActivationOrder",
    "BatchNormalization",
    "ConstantScaling",
    "Conv2D",
    "Convolution",
    "Dropout",
    "ExclusiveGating",
    "Factor",
    "Identity",
    "NoShortcut",
    "ResidualUnit",
    "Shortcut",
    "ShortcutOnlyGating",
    "Taps",
    "ZeroPad",
]
