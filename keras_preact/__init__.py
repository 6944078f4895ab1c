"""Residual networks for Keras, with pre-activation units and every variant of the paper.

Source: He et al., "Identity Mappings in Deep Residual Networks", 2016.
"""

from keras_preact.support import backend

# Before anything imports Keras.
if error := backend.refusal():
    raise error

from keras_preact import analysis, layers, models
from keras_preact.models import PlainNet, ResNet, ResNetV2
from keras_preact.version import __version__

__all__ = ["PlainNet", "ResNet", "ResNetV2", "__version__", "analysis", "layers", "models"]
