"""Small states of a run that tests change and compare."""

import keras
import numpy as np
import tensorflow as tf

import keras_preact
from keras_preact.training import TrainConfig
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.optimizer import SGD
from keras_preact.training.steps.train_state import make_state


def make(seed, ema_decay=None, depth=8, **options):
    keras.utils.set_random_seed(seed)
    model = keras_preact.ResNetV2(depth, input_shape=(8, 8, 3), **options)
    optimizer = SGD(0.1, 0.9)
    optimizer.build(model.trainable_variables)
    return make_state(TrainConfig(ema_decay=ema_decay), model, optimizer)


def scramble(state, seed):
    """Gives each variable random values."""
    random = np.random.default_rng(seed)
    for variables in state.to_save().values():
        for variable in variables.values():
            variable.assign(tf.cast(random.uniform(1, 1000, variable.shape), variable.dtype))


def save(folder, state, step, **options):
    """Saves a checkpoint, waits for it, and returns its path."""
    checkpoints = Checkpoints(folder, state, keep=3)
    checkpoints.save(RunState(step=step), **options)
    checkpoints.wait()
    return folder / f"step-{step}"


def values(state):
    """Returns all variables that must be saved as arrays, by group and name."""
    # Keras numbers optimizers within a process.
    optimizer = {v.path.partition("/")[2]: v for v in state.optimizer.variables}
    assert len(optimizer) == len(state.model.trainable_variables) + 2  # step and learning rate
    groups = {
        "model": {v.path: v for v in state.model.variables},
        "averages": state.averages,
        "optimizer": optimizer,
        "loss_scale": {"scale": state.loss_scale.scale, "good_steps": state.loss_scale.good_steps},
    }
    return {
        f"{group}/{name}": np.array(variable)
        for group, variables in groups.items()
        for name, variable in variables.items()
    }


def assert_same(first, second):
    assert first.keys() == second.keys() and len(first) > 60
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
