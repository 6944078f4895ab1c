"""Checks an installation: versions, devices, arithmetic and speed. `keras-preact doctor`."""
