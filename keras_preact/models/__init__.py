"""The networks: architectures, builders and descriptions."""

from keras_preact.models.architectures import Architecture
from keras_preact.models.describe import Description, describe
from keras_preact.models.resnet import PlainNet, ResNet, ResNetV2

__all__ = ["Architecture", "Description", "PlainNet", "ResNet", "ResNetV2", "describe"]
