"""Loads a model server: requests a second, waiting times, errors, with and without batching."""
