import keras
import numpy as np
import pytest

import keras_preact
from keras_preact.training import TrainConfig, checkpoint
from keras_preact.training.optimizer import SGD
from keras_preact.training.state import make_state


def make(seed, **options):
    keras.utils.set_random_seed(seed)
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), **options)
    optimizer = SGD(0.1, 0.9)
    optimizer.build(model.trainable_variables)
    return make_state(TrainConfig(), model, optimizer)


def take_a_step(state):
    variables = state.model.trainable_variables
    state.optimizer.apply([keras.ops.ones_like(v) for v in variables], variables)


def assert_equal(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("shortcut", ["identity", "dropout"])
def test_a_checkpoint_brings_back_weights_statistics_seeds_and_momentum(tmp_path, shortcut):
    state = make(1, shortcut=shortcut)
    take_a_step(state)
    state.loss_scale.scale.assign(4.0)
    state.loss_scale.good_steps.assign(17)
    checkpoint.Checkpoints(tmp_path, state, keep=3).save(12)
    other = make(2, shortcut=shortcut)
    assert checkpoint.Checkpoints(tmp_path, other, keep=3).restore() == 12
    assert_equal(other.model.variables, state.model.variables)
    assert_equal(other.optimizer.variables, state.optimizer.variables)
    assert int(other.optimizer.iterations) == 1
    assert (other.loss_scale.scale, other.loss_scale.good_steps) == (4, 17)


def test_nothing_is_restored_from_an_empty_folder(tmp_path):
    assert checkpoint.Checkpoints(tmp_path, make(1), keep=3).restore() is None
    with pytest.raises(ValueError, match="no newest checkpoint"):
        checkpoint.find(tmp_path, "newest")


def test_the_newest_few_and_the_best_are_kept(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, make(1), keep=2)
    for step, accuracy in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None)):
        checkpoints.save(step, accuracy)
    newest = {path.name.partition(".")[0] for path in tmp_path.glob("step-*.index")}
    assert newest == {"step-3", "step-4"}
    assert [path.name for path in (tmp_path / "best").glob("*.index")] == ["step-2.index"]
    assert checkpoint.step_of(checkpoint.find(tmp_path, "best")) == 2
    assert checkpoint.step_of(checkpoint.find(tmp_path, "newest")) == 4


def test_the_best_so_far_survives_a_restart(tmp_path):
    checkpoint.Checkpoints(tmp_path, make(1), keep=2).save(1, accuracy=0.9)
    restarted = checkpoint.Checkpoints(tmp_path, make(1), keep=2)
    restarted.restore()
    restarted.save(2, accuracy=0.8)
    assert checkpoint.step_of(checkpoint.find(tmp_path, "best")) == 1


def test_a_checkpoint_of_a_bfloat16_net_fits_the_float32_net(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    state = make(1)
    path = checkpoint.Checkpoints(tmp_path, state, keep=1).save(1)
    keras.config.set_dtype_policy("float32")
    other = make(2)
    checkpoint.load_model(path, other.model)
    assert_equal(other.model.variables, state.model.variables)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    path = checkpoint.Checkpoints(tmp_path, make(1), keep=1).save(1)
    other = make(1, shortcut="exclusive_gating")
    with pytest.raises(ValueError, match="does not fit this model"):
        checkpoint.load_model(path, other.model)
    with pytest.raises(ValueError, match="does not fit this model"):
        checkpoint.Checkpoints(tmp_path, other, keep=1).restore()


@pytest.mark.parametrize("ending", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(tmp_path, ending):
    path = checkpoint.Checkpoints(tmp_path, make(1), keep=1).save(1)
    file = tmp_path / f"step-1{ending}"
    file.write_bytes(file.read_bytes()[:1000])
    state = make(1)
    with pytest.raises(ValueError, match=r"step-1 is damaged"):
        checkpoint.load_model(path, state.model)
    with pytest.raises(ValueError, match=r"step-1 is damaged"):
        checkpoint.Checkpoints(tmp_path, state, keep=1).restore()


def test_checkpoints_whose_index_is_lost_are_not_taken_for_none(tmp_path):
    checkpoint.Checkpoints(tmp_path, make(1), keep=1).save(7)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(ValueError, match=r"the newest step-7.*missing or damaged"):
        checkpoint.Checkpoints(tmp_path, make(1), keep=1).restore()
