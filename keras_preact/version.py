"""The version of keras_preact."""

__version__ = "0.1.0"
