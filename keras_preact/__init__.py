"""Residual networks for Keras, with pre-activation units and every variant of the paper.

Source: He et al., "Identity Mappings in Deep Residual Networks", 2016.
"""

import importlib

from keras_preact.support import startup
from keras_preact.version import __version__

# The programs as functions. They are imported when they are asked for, as some of the packages
# that they need may be missing.
_FUNCTIONS = {
    "convert": "keras_preact.conversion",
    "evaluate": "keras_preact.evaluation",
    "feature_extractor": "keras_preact.models",
    "grad_cam": "keras_preact.analysis",
    "load_run": "keras_preact.training",
    "predict": "keras_preact.prediction",
}

__all__ = [
    "PlainNet",
    "ResNet",
    "ResNetV2",
    "__version__",
    "analysis",
    "convert",
    "evaluate",
    "feature_extractor",
    "grad_cam",
    "layers",
    "load_run",
    "models",
    "predict",
]

# `keras-preact` alone answers without TensorFlow. For all others importing the layers registers
# them with Keras, which then can load models.
if startup.PROGRAM not in startup.DOORS:
    from keras_preact.support import backend

    if startup.PROGRAM:
        startup.begin()
    backend.check()

    from keras_preact import analysis, layers, models
    from keras_preact.models import PlainNet, ResNet, ResNetV2


def __getattr__(name):
    if name in __all__:
        room = _FUNCTIONS.get(name, "keras_preact.models")
        return getattr(importlib.import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
