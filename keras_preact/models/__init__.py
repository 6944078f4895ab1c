"""The networks: architectures, builders and descriptions."""

from keras_preact.models.architectures import Architecture
from keras_preact.models.describe import Description, describe
from keras_preact.models.features import feature_extractor
from keras_preact.models.network import Network, arguments_of, preprocessing_of
from keras_preact.models.resnet import PlainNet, ResNet, ResNetV2
from keras_preact.models.training_memory import TrainingMemory

__all__ = [
    "Architecture",
    "Description",
    "Network",
    "PlainNet",
    "ResNet",
    "ResNetV2",
    "TrainingMemory",
    "arguments_of",
    "describe",
    "feature_extractor",
    "preprocessing_of",
]
