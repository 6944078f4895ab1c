"""Optimizers in training steps: replicas, XLA, float16, frozen parts and clipping."""

import numpy as np
import pytest
import tensorflow as tf
from small_steps import assert_same, make, weights

from keras_preact.training.steps.train_step import TrainStep

CHOICES = {
    "adamw": {"optimizer": "adamw", "learning_rate": 0.01},
    "lamb": {"optimizer": "lamb", "learning_rate": 0.01, "clip_norm": 1.0},
    "torch": {"schedule": "cosine", "nesterov": True, "clip_norm": 0.5},
}
SLOW = pytest.mark.slow


def choices(*quick):
    """All choices, slow ones unless named."""
    return [
        pytest.param(options, id=name, marks=() if name in quick else SLOW)
        for name, options in CHOICES.items()
    ]


@pytest.mark.parametrize("options", choices("lamb"))
def test_two_replicas_train_as_one_device_does(options):
    # A large epsilon: Adam's change is a sign where gradients are mere rounding.
    own = {} if "schedule" in options else {"epsilon": 0.1}
    one, two = make(1, **options, **own), make(2, sync_bn=True, **options, **own)
    first, second = one.take(4), two.take(4)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-3)
    assert_same(weights(one), weights(two), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("options", choices())
def test_xla_computes_what_the_kernels_compute(options):
    own = {} if "schedule" in options else {"epsilon": 0.1}
    plain, compiled = make(1, xla="off", **options, **own), make(1, xla="on", **options, **own)
    np.testing.assert_allclose(compiled.take(3)["loss"], plain.take(3)["loss"], rtol=2e-3)
    assert_same(weights(plain), weights(compiled), rtol=1e-2, atol=1e-3)


class OverflowAtStep1(TrainStep):
    def _differentiate(self, rows, batch, step, replica):
        gradient, *others = super()._differentiate(rows, batch, step, replica)
        return gradient + tf.where(step == 1, np.float32(np.inf), 0.0), *others


def test_a_step_that_overflows_changes_no_row_and_the_gradient_is_clipped_unscaled():
    options = {"optimizer": "adamw", "clip_norm": 0.5, "momentum": 0.0}
    small = make(1, OverflowAtStep1, precision="mixed_float16", **options)
    exact = make(1, **options)
    first, expected = small.take(1), exact.take(1)
    # Of the true gradient, before it is clipped.
    np.testing.assert_allclose(first["gradient_norm"], expected["gradient_norm"], rtol=0.05)
    means = [s.state.rows.moments[0].numpy() for s in (small, exact)]
    for mean in means:
        # The mean of gradients after the first of them.
        np.testing.assert_allclose(np.linalg.norm(mean), 0.1 * 0.5, rtol=1e-3)
    before = [row.numpy() for row in tf.nest.flatten(small.state.rows[:2])]
    assert small.take(1)["applied"] == 0
    for row, value in zip(tf.nest.flatten(small.state.rows[:2]), before, strict=True):
        np.testing.assert_array_equal(row, value)
    assert small.take(1)["applied"] == 1


def test_the_gradient_is_clipped_to_its_norm_and_decay_is_not():
    options = {"momentum": 0.0, "weight_decay": 0.0}
    plain, small = make(1, **options), make(1, clip_norm=0.5, **options)
    before = small.state.rows.weights.numpy()
    norm = small.take(1)["gradient_norm"][0]
    assert norm > 0.5
    np.testing.assert_allclose(plain.take(1)["gradient_norm"], norm, rtol=1e-4)
    step = small.state.rows.weights.numpy() - before
    whole = plain.state.rows.weights.numpy() - before
    np.testing.assert_allclose(np.linalg.norm(step), 0.05 * 0.5, rtol=1e-3)
    np.testing.assert_allclose(step, whole * 0.5 / norm, atol=1e-5)


def test_thawed_parts_begin_with_adams_first_step():
    small = make(freeze=("stem", "stage1"), thaw_epoch=0.1, optimizer="adamw", weight_decay=0.0)
    assert small.state.freezing.thaw_step == 5 and small.state.lines.first_steps is None
    small.take(5)
    before = weights(small)
    small.take(1)
    moved = {path: np.abs(value - before[path]).max() for path, value in weights(small).items()}
    stem, rate = moved["stem_conv/kernel"], float(small.state.optimizer.schedule(5))
    assert 0.9 * rate < stem < 1.001 * rate


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_each_optimizer_learns(optimizer):
    length = {"schedule_steps": 120, "train_steps": 120}
    small = make(1, optimizer=optimizer, schedule="cosine", learning_rate=None, **length)
    losses = small.take(120)["loss"]
    assert losses[-5:].mean() < 0.75 * losses[:5].mean()
