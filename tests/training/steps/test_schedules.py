"""Learning rates by step, against closed forms and Keras."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.training import TrainConfig
from keras_preact.training.steps.schedules import DecaySchedule, StepSchedule, make_schedule


def paper_rate(step):
    """The appendix of the paper, written out."""
    if step < 400:
        return 0.01
    return 0.1 if step < 32_000 else 0.01 if step < 48_000 else 0.001


def rates(schedule, steps):
    """The rates of some steps, compiled by XLA as the steps of a run may be."""
    compiled = tf.function(schedule, jit_compile=True)
    return np.array([compiled(tf.constant(step, tf.int64)).numpy() for step in steps])


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
        global_batch_size=256, schedule_epochs=90.0, drop_epochs=(30.0, 60.0), warmup_epochs=5.0
    )
    schedule = make_schedule(config, train_count=1_281_167)
    # 1,281,167 / 256 = 5004.56 steps an epoch.
    assert schedule.drop_steps == (150_137, 300_274)
    assert (schedule.train_steps, schedule.warmup_steps) == (450_411, 25_023)


def test_no_drops_can_be_asked_for():
    schedule = make_schedule(TrainConfig(drop_steps=(), warmup_steps=0), 1000)
    assert float(schedule(10**6)) == np.float32(0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"drop_steps": (100,), "warmup_steps": 200},
            "warmup_steps must .* first drop, at step 100",
        ),
        ({"schedule": "cosine", "train_steps": 10, "warmup_steps": 11}, "end of the schedule, at"),
        ({"schedule": "linear", "train_steps": 9, "warmup_epochs": 2.0}, "warmup_epochs must end"),
    ],
)
def test_a_warm_up_that_is_too_long_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make_schedule(TrainConfig(**options), 1000)


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (10, 0.0), (10, 0.003)])
def test_the_cosine_is_that_of_keras(warmup, final):
    config = TrainConfig(
        optimizer="adamw",
        schedule="cosine",
        learning_rate=0.02,
        train_steps=100,
        warmup_steps=warmup,
        final_learning_rate=final,
    )
    # Keras wastes the first step on a rate of 0: its warm-up begins a step earlier.
    theirs = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else 0.02,
        100 - warmup,
        alpha=final / 0.02,
        warmup_target=0.02 if warmup else None,
        warmup_steps=warmup + 1 if warmup else 0,
    )
    steps = range(0, 120, 3)
    expected = [float(theirs(step + 1 if warmup else step)) for step in steps]
    ours = rates(make_schedule(config, 1000), steps)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-8)


def test_the_linear_fall_is_that_of_keras():
    schedule = DecaySchedule("linear", 0.5, 90, 0.05, warmup_steps=0, warmup_learning_rate=0.1)
    theirs = keras.optimizers.schedules.PolynomialDecay(0.5, 90, 0.05)
    steps = range(0, 100, 7)
    np.testing.assert_allclose(rates(schedule, steps), [float(theirs(s)) for s in steps], rtol=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant", "steps"])
def test_a_linear_warm_up_rises_to_the_rate_by_equal_amounts(kind):
    options = {"train_steps": 60, "schedule_steps": 60, "warmup": "linear", "warmup_steps": 9}
    config = TrainConfig(schedule=kind, learning_rate=0.2, **options)
    schedule = make_schedule(config, 1000)
    np.testing.assert_allclose(rates(schedule, range(10)), np.arange(1, 11) * 0.02, rtol=1e-5)
    from_there = make_schedule(config.updated(warmup_learning_rate=0.11), 1000)
    np.testing.assert_allclose(rates(from_there, range(10)), np.linspace(0.11, 0.2, 10), rtol=1e-5)


def test_a_constant_rate_stays():
    config = TrainConfig(schedule="constant", learning_rate=0.03, train_steps=50)
    schedule = make_schedule(config, 1000)
    # A twentieth of 50 steps.
    assert schedule.warmup_steps == 2 and schedule.drop_steps == ()
    np.testing.assert_allclose(rates(schedule, [2, 20, 1000]), 0.03, rtol=1e-6)


def test_schedules_without_drops_are_as_long_as_training_unless_a_length_is_given():
    config = TrainConfig(schedule="cosine", train_epochs=2.0, global_batch_size=32)
    schedule = make_schedule(config, 640)
    assert (schedule.schedule_steps, schedule.train_steps, schedule.warmup_steps) == (40, 40, 2)
    assert config.scales_with_training
    given = config.updated(schedule_steps=80)
    assert make_schedule(given, 640).schedule_steps == 80 and not given.scales_with_training
    scaled = make_schedule(given.updated(scale_schedule=True, warmup_steps=8), 640)
    assert (scaled.schedule_steps, scaled.warmup_steps) == (40, 4)
    assert make_schedule(TrainConfig(schedule="linear"), 640).schedule_steps == 64_000


def test_the_rate_is_final_after_the_end():
    schedule = DecaySchedule("cosine", 1.0, 10, 0.25)
    np.testing.assert_allclose(rates(schedule, [5, 10, 11, 10**9]), [0.625, 0.25, 0.25, 0.25])
    middle = (1 + math.cos(math.pi * 0.3)) / 2 * 0.75 + 0.25
    np.testing.assert_allclose(rates(schedule, [3]), middle, rtol=1e-6)


@pytest.mark.parametrize(
    "schedule", [StepSchedule(0.1, (3, 5)), DecaySchedule("cosine", 0.1, 30, warmup_steps=4)]
)
def test_a_schedule_is_saved_as_keras_saves_its_own(schedule):
    saved = keras.saving.serialize_keras_object(schedule)
    restored = keras.saving.deserialize_keras_object(saved)
    assert [float(restored(step)) for step in range(8)] == [
        float(schedule(step)) for step in range(8)
    ]
