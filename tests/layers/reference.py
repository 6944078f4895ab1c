"""NumPy arithmetic, in float64, that layers and units are compared against."""

import numpy as np


def conv2d(x, kernel, strides=1):
    """A convolution by its definition, with (k - 1) / 2 zeros on each side."""
    size = kernel.shape[0]
    pad = ((size - 1) // 2,) * 2
    x = np.pad(x.astype("float64"), ((0, 0), pad, pad, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows[:, ::strides, ::strides], kernel)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))
