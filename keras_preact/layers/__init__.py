"""The parts of a residual unit, and its plan."""

from keras_preact.layers.activation_order import ORDERS, ActivationOrder
from keras_preact.layers.batch_norm import BatchNormalization
from keras_preact.layers.layout import LAYOUTS, Layout
from keras_preact.layers.preprocessing import Preprocessing
from keras_preact.layers.residual_unit import ResidualUnit
from keras_preact.layers.shortcuts import (
    SHORTCUTS,
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    Shortcut,
    ShortcutOnlyGating,
)
from keras_preact.layers.spatial import Conv2D, SymmetricMaxPooling2D, ZeroPad
from keras_preact.layers.taps import Factor, Taps
from keras_preact.layers.unit_plan import BLOCKS, PROJECTIONS, Operation, UnitKind, UnitPlan

__all__ = [
    "BLOCKS",
    "LAYOUTS",
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
    "Layout",
    "NoShortcut",
    "Operation",
    "Preprocessing",
    "ResidualUnit",
    "Shortcut",
    "ShortcutOnlyGating",
    "SymmetricMaxPooling2D",
    "Taps",
    "UnitKind",
    "UnitPlan",
    "ZeroPad",
]
