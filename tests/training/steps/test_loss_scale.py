"""Dynamic loss scaling, step by step."""

import numpy as np
import tensorflow as tf

from keras_preact.training.steps import loss_scale

INITIAL = loss_scale.INITIAL_SCALE, 0.0


def after(state, finite):
    """The scale and the number of good steps after a step."""
    scale, good = (tf.constant(value, tf.float32) for value in state)
    return tuple(map(float, loss_scale.update(scale, good, tf.constant(finite))))


def test_it_starts_at_two_to_the_fifteenth():
    assert loss_scale.INITIAL_SCALE == 32768.0


def test_an_overflow_halves_the_scale_and_starts_the_count_anew():
    halved = after((INITIAL[0], 1234.0), False)
    assert halved == (16384.0, 0)
    assert after(halved, False) == (8192.0, 0)
    assert after((8192.0, 0), True) == (8192.0, 1)


def test_two_thousand_good_steps_in_a_row_double_the_scale():
    state = INITIAL
    for _ in range(1999):
        state = after(state, True)
    assert state == (32768.0, 1999)
    assert after(state, True) == (65536.0, 0)


def test_the_scale_stays_between_its_bounds():
    state = INITIAL
    for _ in range(40):
        state = after(state, False)
    assert state == (1.0, 0)
    for _ in range(40):
        state = after((state[0], loss_scale.GROWTH_STEPS - 1), True)
    assert state == (2.0**24, 0)


def test_it_follows_the_published_rule_over_a_random_run():
    expected, good = 2.0**15, 0
    random = np.random.default_rng(0)
    # Overflows at first often, down to the smallest scale, then so rarely that it grows again.
    finite = np.concatenate([random.random(100) < 0.5, random.random(30_000) < 0.9998])

    @tf.function
    def take(finite):
        scales = tf.TensorArray(tf.float32, len(finite))
        counts = tf.TensorArray(tf.float32, len(finite))
        scale, good_steps = tf.constant(INITIAL[0]), tf.constant(INITIAL[1])
        for step in tf.range(len(finite)):
            scale, good_steps = loss_scale.update(scale, good_steps, finite[step])
            scales, counts = scales.write(step, scale), counts.write(step, good_steps)
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
