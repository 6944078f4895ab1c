import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_preact
from keras_preact.training import TrainConfig
from keras_preact.training.steps.optimizer import (
    MomentumSGD,
    StepSchedule,
    make_optimizer,
    make_schedule,
)
from keras_preact.training.steps.train_state import make_state


def paper_rate(step):
    """The appendix of the paper, written out."""
    if step < 400:
        return 0.01
    return 0.1 if step < 32_000 else 0.01 if step < 48_000 else 0.001


@pytest.mark.parametrize("step", [0, 399, 400, 401, 31_999, 32_000, 47_999, 48_000, 63_999])
def test_the_default_schedule_is_the_papers(step):
    schedule = make_schedule(TrainConfig(), train_count=50_000)
    assert schedule.train_steps == 64_000
    np.testing.assert_allclose(float(schedule(step)), paper_rate(step), rtol=1e-5)


def test_a_shortened_run_keeps_the_schedule_unless_told_to_scale_it():
    kept = make_schedule(TrainConfig(train_steps=6_400), 50_000)
    scaled = make_schedule(TrainConfig(train_steps=6_400, scale_schedule=True), 50_000)
    assert (kept.train_steps, kept.drop_steps, kept.warmup_steps) == (6_400, (32_000, 48_000), 400)
    assert (scaled.train_steps, scaled.drop_steps) == (6_400, (3_200, 4_800))
    assert scaled.warmup_steps == 40


def test_epochs_are_rounded_up_to_whole_steps():
    config = TrainConfig(
        global_batch_size=256, schedule_epochs=90.0, drop_epochs=(30.0, 60.0), warmup_steps=0
    )
    schedule = make_schedule(config, train_count=1_281_167)
    # 1,281,167 / 256 = 5004.56 steps an epoch.
    assert schedule.drop_steps == (150_137, 300_274)
    assert schedule.train_steps == 450_411


def test_no_drops_can_be_asked_for():
    schedule = make_schedule(TrainConfig(drop_steps=(), warmup_steps=0), 1000)
    assert float(schedule(10**6)) == np.float32(0.1)


def test_a_warm_up_beyond_the_first_drop_is_refused():
    with pytest.raises(ValueError, match="first drop, at step 100"):
        make_schedule(TrainConfig(drop_steps=(100,), warmup_steps=200), 1000)


def test_updates_follow_the_written_out_formula_across_a_drop():
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=(3, 4)), rng.normal(size=(6, 3, 4))
    decay, momentum, rates = 0.05, 0.9, [0.01, 0.1, 0.1, 0.1, 0.01, 0.01]
    schedule = StepSchedule(0.1, (4,), 0.1, warmup_steps=1, warmup_learning_rate=0.01)
    optimizer = MomentumSGD(schedule, momentum, decay)
    weights = tf.constant(start, tf.float32)
    velocity = tf.zeros_like(weights)

    # The second of the three lines is the last that decays.
    w, v, decayed = start.copy(), np.zeros_like(start), np.array([[1], [1], [0]])
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        weights, velocity = optimizer.update(
            weights, velocity, tf.constant(gradient, tf.float32), tf.constant(step, tf.int64), 2
        )
        v = momentum * v - rate * (gradient + decay * decayed * w)
        w = w + v
        np.testing.assert_allclose(weights, w, atol=1e-6)
        np.testing.assert_allclose(velocity, v, atol=1e-6)


def updates_of_zero_gradients(**options):
    """Tells by path whether weight decay alone moves a variable."""
    config = TrainConfig(weight_decay=0.1, warmup_steps=0, **options)
    model = keras_preact.ResNetV2(8, input_shape=(8, 8, 3), shortcut="exclusive_gating")
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    optimizer = make_optimizer(config, make_schedule(config, 100), model)
    state = make_state(config, model, optimizer)
    row = tf.convert_to_tensor(state.rows.weights)
    zeros, step = tf.zeros_like(row), tf.constant(0, tf.int64)
    updated, _ = optimizer.update(row, zeros, zeros, step, state.decayed_lines)
    values = state.weights.unpack(updated)
    assert values.keys() == {variable.path for variable in model.trainable_variables}
    return {path: not np.allclose(value, 1) for path, value in values.items()}


def test_all_parameters_decay_by_default_as_in_the_authors_code():
    assert all(updates_of_zero_gradients().values())


def test_decay_bn_false_spares_gamma_and_beta_alone():
    moved = updates_of_zero_gradients(decay_bn=False)
    spared = {path for path, moves in moved.items() if not moves}
    assert spared == {path for path in moved if path.rpartition("/")[2] in ("gamma", "beta")}
    assert "logits/bias" not in spared and "stem_conv/kernel" not in spared
