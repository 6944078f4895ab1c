"""Averaged weights, and the variables of a checkpoint."""

import dataclasses

import keras
import numpy as np
from small_states import save
from small_steps import CONFIG, copies, everywhere, make

from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.steps.optimizer import MomentumSGD
from keras_preact.training.steps.schedules import StepSchedule
from keras_preact.training.steps.train_state import TrainState


def test_averages_follow_the_recursion_from_the_initial_weights():
    small = make(1, ema_decay=0.6)
    path = next(path for path in small.state.weights.shapes if "conv1" in path)
    expected = small.state.to_arrays(0)["model"][path].astype(np.float64)
    for step in range(1, 5):
        small.take(1)
        arrays = small.state.to_arrays(step)
        decay = min(0.6, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * arrays["model"][path]
        np.testing.assert_allclose(arrays["averages"][path], expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(arrays["averages"][path], arrays["model"][path], atol=1e-4)


def test_averages_are_evaluated_saved_and_loaded(tmp_path):
    small = make(1, ema_decay=0.9)
    small.take(3)
    saved = str(save(tmp_path, small.state, 3))
    fresh = make(1).state.network
    checkpoint.load_model(saved, fresh, averages=True)
    arrays = small.state.to_arrays(3)
    for loaded in fresh.trainable_variables:
        np.testing.assert_array_equal(loaded.numpy(), arrays["averages"][loaded.path])
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    logits = small.state.evaluated_logits(images)
    np.testing.assert_allclose(logits, fresh(images, training=False), rtol=1e-4, atol=1e-5)
    checkpoint.load_model(saved, fresh)
    for loaded in fresh.trainable_variables:
        np.testing.assert_array_equal(loaded.numpy(), arrays["model"][loaded.path])


def test_without_a_decay_nothing_is_averaged():
    state = make(1).state
    assert "averages" not in state.to_arrays(0)
    assert state.evaluated() == (state.rows.weights, state.rows.statistics)


def test_the_network_is_up_to_date_when_used_and_what_changes_in_it_is_trained_on():
    small = make(1)
    small.take(2)
    arrays = small.state.to_arrays(2)["model"]
    with small.state.in_network() as network:
        for variable in network.variables:
            np.testing.assert_array_equal(variable, arrays[variable.path], err_msg=variable.path)
        network.get_layer("logits").bias.assign(np.arange(10))
    after = small.state.to_arrays(2)["model"]
    np.testing.assert_array_equal(after.pop("logits/bias"), np.arange(10))
    for path, value in after.items():
        np.testing.assert_array_equal(value, arrays[path], err_msg=path)


def test_each_replica_keeps_its_own_statistics_in_the_network_and_after_it():
    small = make(2)
    small.take(2)
    before = copies(small.state.rows.statistics)
    assert not np.array_equal(*before)
    [own] = [v for v in everywhere(small, "non_trainable").items() if v[0] == "head_bn/moving_mean"]
    assert not np.array_equal(*own[1])
    np.testing.assert_array_equal(copies(small.state.rows.statistics), before)


class Counted(keras.layers.Layer):
    """A unit with a counter of its calls, a statistic in float64 and a weight without use."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.unused = self.add_weight(shape=(3,), initializer="ones", name="unused")
        options = {"shape": (), "trainable": False, "initializer": "zeros"}
        self.calls = self.add_weight(name="calls", dtype="int32", **options)
        self.largest = self.add_weight(name="largest", dtype="float64", **options)

    def call(self, x, training=None):
        if training:
            self.calls.assign(self.calls + 1)
            self.largest.assign(keras.ops.cast(keras.ops.max(x), "float64"))
        return x * self.scale


def test_variables_of_other_types_change_in_steps_and_are_saved():
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(Counted(name="own")(inputs)))
    state = TrainState(keras.Model(inputs, outputs), MomentumSGD(StepSchedule(0.1)))
    small = make(1)
    step = dataclasses.replace(small.step, state=state)
    step(small.batches, 0, 3)
    saved = state.to_arrays(3)
    assert saved["model"]["own/calls"] == 3
    np.testing.assert_array_equal(saved["model"]["own/unused"], np.ones(3))
    assert saved["model"]["own/largest"].dtype == np.float64 and saved["model"]["own/largest"] > 0
    step(small.batches, 3, 2)
    assert state.to_arrays(5)["model"]["own/calls"] == 5
    state.from_arrays(saved)
    assert state.to_arrays(3)["model"]["own/calls"] == 3


def test_names_of_saved_variables_depend_on_neither_precision_nor_replicas():
    names = [
        {group: sorted(values) for group, values in make(n, precision=p).state.to_arrays(0).items()}
        for n, p in ((1, "float32"), (1, "mixed_bfloat16"), (2, "mixed_float16"))
    ]
    assert names[0] == names[1] == names[2]
    assert set(names[0]) == {"model", "optimizer", "loss_scale"}
    assert "stage1_unit1/conv1/kernel" in names[0]["model"]
    assert CONFIG.precision == "auto"
