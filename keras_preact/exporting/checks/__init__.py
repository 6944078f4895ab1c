"""Exported files compared with the Keras model."""
