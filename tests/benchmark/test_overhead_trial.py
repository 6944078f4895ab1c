"""What mode overhead times is what a run computes."""

import dataclasses
import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_preact.benchmark import ours
from keras_preact.benchmark.job import Job, make_net
from keras_preact.benchmark.overhead import trial

JOB = Job("keras_preact", "overhead", "float32", make_net(8), 1, 8, None)


@pytest.fixture
def training():
    keras.utils.set_random_seed(1)
    return ours.Training.build(trial._config(JOB), trial._noise(JOB))


def test_the_compiled_function_alone_takes_the_step_of_a_launch_and_an_empty_one_none(training):
    compiled = trial.CompiledFunction(training)
    before = [row.numpy().copy() for row in tf.nest.flatten(training.state.rows.read()[:3])]
    empty = trial.Launches(training._replace(step=trial.EmptyStep.like(training.step)))
    empty.take(3)
    for row, value in zip(tf.nest.flatten(training.state.rows.read()[:3]), before, strict=True):
        np.testing.assert_array_equal(row, value)
    compiled.milliseconds(1)
    # The first batch, which the compiled function has taken already.
    first = training._replace(batches=training.batches.__class__(training.batches._order, 0))
    trial.Launches(first).take(1)
    for name in ("weights", "moments", "statistics"):
        ours, launched = (getattr(rows, name) for rows in (compiled._rows, training.state.rows))
        if name == "moments":
            [ours], [launched] = ours, launched
            assert np.abs(launched).max() > 0
        np.testing.assert_array_equal(ours, launched.numpy(), err_msg=name)


@pytest.mark.slow
def test_a_trial_measures_each_number_of_steps_and_the_one_that_a_run_chooses():
    found = trial.measure(dataclasses.replace(JOB, steps=4), enough_seconds=1)
    assert (found["device"], found["xla"]) == ("CPU", False)
    launches = found["launches"]
    assert [each["steps"] for each in launches[:-1]] == [1, 7, 50]
    assert [each["chosen"] for each in launches] == [False, False, False, True]
    for each in launches:
        assert len(each["pairs"]) >= trial.LEAST_TURNS
        assert all(value > 0 for pair in each["pairs"] for value in pair)
        # The state and its place in the loop, but no variable of the network.
        assert 10 < each["operations"]["outside"] / each["steps"] < 40
        assert each["operations"]["inside"] / each["steps"] > 100
    one, *_, many, _ = (statistics.median(each["empty"]) for each in launches)
    assert many < one
