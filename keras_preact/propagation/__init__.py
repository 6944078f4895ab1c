"""The signal and the gradient in every residual unit of a network, measured."""

from keras_preact.propagation.backward_pass import backward
from keras_preact.propagation.forward_pass import forward
from keras_preact.propagation.results import Backward, Forward, Moments

__all__ = ["Backward", "Forward", "Moments", "backward", "forward"]
