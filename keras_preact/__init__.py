"""Residual networks for Keras, with pre-activation units and every variant of the paper.

Source: He et al., "Identity Mappings in Deep Residual Networks", 2016.
"""

import keras

if keras.backend.backend() != "tensorflow":
    raise ImportError(
        "keras_preact needs Keras on TensorFlow: set KERAS_BACKEND=tensorflow before Keras is "
        f"imported. Received: KERAS_BACKEND={keras.backend.backend()}"
    )

from keras_preact import analysis, layers, models
from keras_preact.models import PlainNet, ResNet, ResNetV2
from keras_preact.version import __version__

__all__ = ["PlainNet", "ResNet", "ResNetV2", "__version__", "analysis", "layers", "models"]
