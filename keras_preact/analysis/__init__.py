"""The paper's equations measured on any network: arrays in, arrays out."""

from keras_preact.analysis.backward_pass import backward
from keras_preact.analysis.class_activation import grad_cam
from keras_preact.analysis.forward_pass import forward
from keras_preact.analysis.initial_gradient import initialisation
from keras_preact.analysis.lesions import lesion
from keras_preact.analysis.paths import path_lengths
from keras_preact.analysis.results import (
    Backward,
    Forward,
    Initialisation,
    Lesions,
    Moments,
    PathLengths,
)

__all__ = [
    "Backward",
    "Forward",
    "Initialisation",
    "Lesions",
    "Moments",
    "PathLengths",
    "backward",
    "forward",
    "grad_cam",
    "initialisation",
    "lesion",
    "path_lengths",
]
