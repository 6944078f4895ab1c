"""Dynamic loss scaling, step by step."""

import numpy as np
import tensorflow as tf

from keras_preact.training.steps import loss_scale
from keras_preact.training.steps.loss_scale import LossScale


def values(scale):
    return float(scale.scale), int(scale.good_steps)


def test_it_starts_at_two_to_the_fifteenth_without_good_steps():
    assert values(LossScale()) == (32768.0, 0)


def test_an_overflow_halves_the_scale_and_starts_the_count_anew():
    scale = LossScale()
    scale.good_steps.assign(1234)
    scale.update(tf.constant(False))
    assert values(scale) == (16384.0, 0)
    scale.update(tf.constant(False))
    assert values(scale) == (8192.0, 0)
    scale.update(tf.constant(True))
    assert values(scale) == (8192.0, 1)


def test_two_thousand_good_steps_in_a_row_double_the_scale():
    scale = LossScale()
    update = tf.function(scale.update)
    for _ in range(1999):
        update(tf.constant(True))
    assert values(scale) == (32768.0, 1999)
    update(tf.constant(True))
    assert values(scale) == (65536.0, 0)


def test_the_scale_stays_between_its_bounds():
    scale = LossScale()
    for _ in range(40):
        scale.update(tf.constant(False))
    assert values(scale) == (1.0, 0)
    for _ in range(40):
        scale.good_steps.assign(loss_scale.GROWTH_STEPS - 1)
        scale.update(tf.constant(True))
    assert values(scale) == (2.0**24, 0)


def test_it_follows_the_published_rule_over_a_random_run():
    scale, expected, good = LossScale(), 2.0**15, 0
    random = np.random.default_rng(0)
    # Overflows at first often, down to the smallest scale, then so rarely that it grows again.
    finite = np.concatenate([random.random(100) < 0.5, random.random(30_000) < 0.9998])

    @tf.function
    def take(finite):
        scales = tf.TensorArray(tf.float32, len(finite))
        counts = tf.TensorArray(tf.int32, len(finite))
        for step in tf.range(len(finite)):
            scale.update(finite[step])
            scales = scales.write(step, scale.scale)
            counts = counts.write(step, scale.good_steps)
        return scales.stack(), counts.stack()

    scales, counts = (tensor.numpy() for tensor in take(tf.constant(finite)))
    assert scales.min() == 1.0 and scales.max() >= 2.0**9
    for step, is_finite in enumerate(finite):
        good = good + 1 if is_finite else 0
        if not is_finite:
            expected = max(expected / 2, 1.0)
        elif good == 2000:
            expected, good = min(expected * 2, 2.0**24), 0
        assert (scales[step], counts[step]) == (expected, good)


def test_its_variables_are_what_a_checkpoint_brings_back(tmp_path):
    scale = LossScale()
    scale.scale.assign(4.0)
    scale.good_steps.assign(7)
    path = tf.train.Checkpoint(**scale.variables).save(str(tmp_path / "scale"))
    other = LossScale()
    tf.train.Checkpoint(**other.variables).restore(path).assert_consumed()
    assert values(other) == (4.0, 7)
    assert not any(variable.trainable for variable in other.variables.values())
