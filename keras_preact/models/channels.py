"""Kernels of a stem for images of other channels."""

import numpy as np


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Returns the kernel of a first convolution for images of another number of channels.

    A grey image, the same in every channel, gives the same output before and after: fewer
    channels take the sums of those that they stand for, more channels repeat them in turn, each
    divided by the number of its copies. From 1 to 3 channels that is a third of the kernel, from
    3 to 4 the first and the fourth channel share one.

    `Preprocessing.with_channels` does the same with mean and standard deviation.

    Args:
        kernel: (height, width, channels, filters).
        channels: of the images, above 0.
    """
    before = kernel.shape[2]
    if channels == before:
        return kernel
    # Each channel, old or new, stands for the channel of its number modulo the fewer ones.
    fewer = min(before, channels)
    if channels < before:
        parts = [kernel[:, :, channel::fewer].sum(axis=2) for channel in range(fewer)]
        return np.stack(parts, axis=2)
    copies = [len(range(channel, channels, fewer)) for channel in range(fewer)]
    parts = [kernel[:, :, c % fewer] / copies[c % fewer] for c in range(channels)]
    return np.stack(parts, axis=2).astype(kernel.dtype)
