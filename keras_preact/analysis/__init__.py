"""Does the signal propagate as the paper says? Arrays in, arrays out; no plotting needed."""

from keras_preact.propagation import Backward, Forward, Moments, backward, forward

__all__ = ["Backward", "Forward", "Moments", "backward", "forward"]
