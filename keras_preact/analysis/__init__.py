"""Does the signal propagate as the paper says? Arrays in, arrays out; no plotting needed."""

from keras_preact.analysis.draws import initialisation
from keras_preact.analysis.lesions import lesion
from keras_preact.analysis.paths import path_lengths
from keras_preact.analysis.results import Initialisation, Lesions, PathLengths
from keras_preact.propagation import Backward, Forward, Moments, backward, forward

__all__ = [
    "Backward",
    "Forward",
    "Initialisation",
    "Lesions",
    "Moments",
    "PathLengths",
    "backward",
    "forward",
    "initialisation",
    "lesion",
    "path_lengths",
]
