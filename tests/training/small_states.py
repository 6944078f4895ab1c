"""Small states of a run that tests change and compare."""

import keras
import numpy as np
import tensorflow as tf

import keras_preact
from keras_preact.training import TrainConfig
from keras_preact.training.checkpoints.checkpoint import Checkpoints
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.optimizer import MomentumSGD
from keras_preact.training.steps.schedules import StepSchedule
from keras_preact.training.steps.train_state import make_state


def make(seed, ema_decay=None, depth=8, **options):
    keras.utils.set_random_seed(seed)
    model = keras_preact.ResNetV2(depth, input_shape=(8, 8, 3), **options)
    optimizer = MomentumSGD(StepSchedule(0.1))
    return make_state(TrainConfig(ema_decay=ema_decay), model, optimizer)


def scramble(state, seed):
    """Gives each value a random one."""
    random = np.random.default_rng(seed)

    def other(value):
        # Of the right range for every dtype; what fills rows stays zero.
        return random.uniform(1, 1000, value.shape).astype(value.dtype)

    state.from_arrays(tf.nest.map_structure(other, state.to_arrays(0)))


def save(folder, state, step, **options):
    """Saves a checkpoint, waits for it, and returns its path."""
    checkpoints = Checkpoints(folder, state, keep=3)
    checkpoints.save(RunState(step=step), **options)
    checkpoints.wait()
    return folder / f"step-{step}"


def values(state):
    """Returns all values that must be saved but the step, by group and name."""
    arrays = state.to_arrays(0)
    assert len(arrays["optimizer"]) == len(state.network.trainable_variables) + 1  # the step
    del arrays["optimizer"]["iteration"]
    return {f"{group}/{name}": v for group, vs in arrays.items() for name, v in vs.items()}


def assert_same(first, second):
    assert first.keys() == second.keys() and len(first) > 60
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
