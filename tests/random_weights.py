"""Random parameters and BN statistics, so that no gamma of 1 or bias of 0 hides an error."""

import keras
import numpy as np


def randomize(model: keras.Model, seed: int = 1) -> keras.Model:
    """Gives a model random biases, and BN random parameters and statistics; returns it."""
    generator = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
        elif name in ("beta", "bias", "moving_mean"):
            variable.assign(generator.normal(0, 0.3, variable.shape))
    return model
