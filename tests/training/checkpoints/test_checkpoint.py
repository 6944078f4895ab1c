"""Checkpoints bring everything back, and the right ones are kept."""

import dataclasses
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from small_states import assert_same, make, names, save, scramble, values

from keras_preact.support import files
from keras_preact.training.checkpoints import checkpoint
from keras_preact.training.checkpoints.folder import step_of
from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.steps.schedules import StepSchedule
from keras_preact.training.steps.train_state import by_path


@pytest.fixture(scope="module")
def state():
    return make(1)


@pytest.fixture(scope="module")
def other():
    return make(2)


def restore(folder, state):
    return checkpoint.Checkpoints(folder, state, keep=3).restore()


def saved_model(state):
    return state.to_arrays(0)["model"]


def test_a_checkpoint_brings_back_everything_to_the_last_bit(tmp_path):
    options = {"ema_decay": 0.9, "shortcut": "dropout"}
    state, other = make(1, **options), make(2, **options)
    scramble(state, seed=3)
    run_state = RunState(
        step=12_000_000_000,
        epoch=7,
        step_in_epoch=2,
        seed=2**31 - 1,
        reshuffles=(400, 400, 800),
        best_score=1 / 3,
        evaluated=False,
        csv_bytes=987,
        step_metrics=np.random.default_rng(1).uniform(size=(5, 7)),
    )
    checkpoints = checkpoint.Checkpoints(tmp_path, state, keep=3)
    checkpoints.save(run_state)
    checkpoints.wait()
    expected = values(state)
    for name, value in values(other).items():
        assert not np.array_equal(value, expected[name]), name
    restored = restore(tmp_path, other)
    assert_same(values(other), expected)
    for field in dataclasses.fields(RunState):
        value, expected = getattr(restored, field.name), getattr(run_state, field.name)
        assert type(value) is type(expected), field.name
        np.testing.assert_array_equal(value, expected, err_msg=field.name)


def test_the_saved_state_is_that_of_the_call_though_it_changes_meanwhile(tmp_path, state, other):
    scramble(state, seed=1)
    expected, may_write, seen = values(state), threading.Event(), []
    checkpoints = checkpoint.Checkpoints(tmp_path, state, keep=3)

    def before():
        assert may_write.wait(20)
        seen.append(names(tmp_path))

    checkpoints.save(RunState(step=5), before=before, after=lambda: seen.append(checkpoints.newest))
    assert checkpoints.newest is None
    # Training continues, and changes everything.
    scramble(state, seed=2)
    may_write.set()
    checkpoints.wait()
    assert seen == [[".step-5.tmp"], str(tmp_path / "step-5")]
    assert restore(tmp_path, other).step == 5
    assert_same(values(other), expected)


def test_the_saved_statistics_are_the_means_of_those_of_the_replicas(tmp_path, state, other):
    statistics = [v for v in state.network.variables if "moving_" in v.path]
    size = sum(np.prod(v.shape) for v in statistics)
    rows = np.random.default_rng(0).normal(size=(2, size)).astype(np.float32)
    checkpoints = checkpoint.Checkpoints(tmp_path, state, keep=1)
    checkpoints.save(RunState(step=1, replica_statistics=rows))
    checkpoints.wait()
    np.testing.assert_array_equal(restore(tmp_path, other).replica_statistics, rows)
    restored = [np.ravel(v) for path, v in saved_model(other).items() if "moving_" in path]
    np.testing.assert_allclose(np.concatenate(restored), (rows[0] + rows[1]) / 2, rtol=1e-6)


def test_nothing_is_restored_from_an_empty_folder(tmp_path, state):
    assert restore(tmp_path, state) is None
    for which in ("newest", "best"):
        with pytest.raises(ValueError, match=f"no {which} checkpoint"):
            checkpoint.find(tmp_path, which)


def test_the_newest_few_and_the_best_are_kept(tmp_path, state, other):
    checkpoints = checkpoint.Checkpoints(tmp_path, state, keep=2)
    for step, best in ((8, True), (9, True), (10, False), (11, False)):
        scramble(state, seed=step)
        checkpoints.save(RunState(step=step), best=best)
    checkpoints.wait()
    assert [name for name in names(tmp_path) if "-" in name] == ["step-10", "step-11"]
    assert [name for name in names(tmp_path / "best") if "-" in name] == ["step-9"]
    newest, best = (checkpoint.find(tmp_path, which) for which in ("newest", "best"))
    assert checkpoints.newest == newest
    assert (step_of(newest), step_of(best)) == (11, 9)
    # TensorFlow's own tools take these for the latest.
    assert tf.train.latest_checkpoint(str(tmp_path)) == f"{newest}/variables"
    assert tf.train.latest_checkpoint(str(tmp_path / "best")) == f"{best}/variables"
    # The best is for evaluating and exporting, and has no optimizer.
    held = tf.train.load_checkpoint(f"{best}/variables").get_variable_to_shape_map()
    assert {name.partition("/")[0] for name in held} == {"model", "_CHECKPOINTABLE_OBJECT_GRAPH"}
    checkpoint.load_model(best, other.network)
    scramble(state, seed=9)
    expected = saved_model(state)
    for loaded in other.network.variables:
        np.testing.assert_array_equal(loaded, expected[loaded.path], err_msg=loaded.path)


def test_a_checkpoint_of_a_bfloat16_net_fits_the_float32_net(tmp_path, other):
    keras.config.set_dtype_policy("mixed_bfloat16")
    saved = make(1)
    path = save(tmp_path, saved, 1)
    checkpoint.load_model(str(path), other.network)
    expected = saved_model(saved)
    for loaded in other.network.variables:
        np.testing.assert_array_equal(loaded, expected[loaded.path], err_msg=loaded.path)


def test_a_checkpoint_of_earlier_versions_whose_momentum_keras_held_is_restored(tmp_path, other):
    network = make(3).network
    sgd = keras.optimizers.SGD(StepSchedule(0.1), momentum=0.9)
    sgd.build(network.trainable_variables)
    random = np.random.default_rng(0)
    for variable in (*network.variables, *sgd.momentums):
        variable.assign(random.normal(size=variable.shape))
    sgd.iterations.assign(7)
    scale = {"scale": tf.Variable(2.0**9), "good_steps": tf.Variable(5, dtype=tf.int32)}
    groups = {
        "model": by_path(network.variables),
        "optimizer": {v.path.partition("/")[2]: v.value for v in sgd.variables},
        "loss_scale": scale,
    }
    with files.sealed(epath.Path(tmp_path / "step-7")) as folder:
        position = RunState(step=7).to_variables()
        tf.train.Checkpoint(**groups, position=position).write(str(folder / "variables"))
    assert restore(tmp_path, other).step == 7
    arrays = other.to_arrays(7)
    for group, variables in groups.items():
        assert arrays[group].keys() == variables.keys()
        for name, variable in variables.items():
            np.testing.assert_array_equal(arrays[group][name], variable, err_msg=name)
    with other.in_network():
        for variable in other.network.variables:
            np.testing.assert_array_equal(variable, groups["model"][variable.path])


class EarlierRunState(RunState):
    """The run state of versions before the best step was saved."""

    def to_variables(self):
        return {n: v for n, v in super().to_variables().items() if n != "best_step"}


def test_a_checkpoint_of_an_earlier_version_is_restored(tmp_path, state, other):
    checkpoints = checkpoint.Checkpoints(tmp_path, state, keep=3)
    checkpoints.save(EarlierRunState(step=7, best_score=0.75))
    checkpoints.wait()
    restored = restore(tmp_path, other)
    assert (restored.step, restored.best_score, restored.best_step) == (7, 0.75, -1)
