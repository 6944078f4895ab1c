"""Weights made elsewhere: reads them, recognizes the network, and writes ours for others."""

from keras_preact.models.foreign.assign import Report
from keras_preact.models.foreign.converting import Conversion, conversion, convert
from keras_preact.models.foreign.own import load_keras
from keras_preact.models.foreign.recognize import FORMATS
from keras_preact.models.foreign.writing import (
    how_to_load,
    safetensors_bytes,
    timm_name,
    write_safetensors,
)

__all__ = [
    "FORMATS",
    "Conversion",
    "Report",
    "conversion",
    "convert",
    "how_to_load",
    "load_keras",
    "safetensors_bytes",
    "timm_name",
    "write_safetensors",
]
