"""Comparisons of exported files with the Keras model."""
