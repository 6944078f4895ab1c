"""Conversions: a network from any source of weights, checked, and written to a file."""

from keras_preact.support import extras

extras.check()

from keras_preact.conversion.sources import convert
from keras_preact.conversion.verification import Verification, verify

__all__ = ["Verification", "convert", "verify"]
