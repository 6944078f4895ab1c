"""Nets of keras.applications with random variables, and every file that Keras makes of them."""

import h5py
import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format


def build(depth, shape, **options):
    """A ResNet50V2 or deeper, with random kernels, biases and BN, in inference."""
    builder = getattr(keras.applications, f"ResNet{depth}V2")
    net = builder(weights=None, input_shape=shape, classifier_activation=None, **options)
    rng = np.random.default_rng(0)
    for variable in net.variables:
        shape = tuple(variable.shape)
        if variable.name == "kernel":
            # Many units add up to a signal of order 1.
            scale = 0.4 if "_3_conv" in variable.path else 1
            values = rng.normal(size=shape) * scale * np.prod(shape[:-1]) ** -0.5
        elif variable.name in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, size=shape)
        else:  # biases, beta, moving_mean
            values = rng.normal(size=shape) * 0.3
        variable.assign(values.astype("float32"))
    return net


def save(net, path):
    """Saves a net as the name of a file says: the name alone.h5 is Keras 2's weights alone."""
    if path.name.endswith(".weights.h5"):
        net.save_weights(path)
    elif path.name == "alone.h5":
        # The format of the files that keras.applications downloads.
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, net)
    else:
        net.save(path)
    return path


def images(*shape):
    return np.random.default_rng(1).uniform(-1, 1, size=shape).astype("float32")
