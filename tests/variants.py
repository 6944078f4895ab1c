"""The published names, spelled out once for the tests of all combinations."""

from keras_preact.layers import ActivationOrder

ORDERS = (
    "original",
    "bn_after_addition",
    "relu_before_addition",
    "relu_only_preactivation",
    "full_preactivation",
)
SHORTCUTS = (
    "identity",
    "constant_scaling",
    "exclusive_gating",
    "shortcut_only_gating",
    "convolution",
    "dropout",
)
PYRAMID = ActivationOrder("bn conv", "bn relu conv", "bn relu conv bn")
