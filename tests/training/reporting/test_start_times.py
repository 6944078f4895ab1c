"""The parts of a start add up to its whole, and graph optimization is told from the steps."""

import pytest
import tensorflow as tf

from keras_preact.training.reporting.start_times import StartTimes


class _Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return _Clock()


def launch(times, clock, steps, *spent, compiler="graph optimization"):
    with times.launch(steps, compiler):
        for seconds in spent:
            clock.spend(seconds)


def test_a_start_is_told_after_the_second_launch(clock):
    times = StartTimes(began=97.0, clock=clock)
    with times.part("data"):
        clock.spend(2)
    with times.part("network"):
        clock.spend(4)
    clock.spend(1)
    trace = times.traced(clock.spend)
    with times.launch(1, "graph optimization"):
        trace(5)
        clock.spend(7.5)
    assert times.told() is None
    clock.spend(1000)  # such as an evaluation between the launches
    launch(times, clock, 4, 2.0)
    assert times.told() == (
        "First step after 22.5 s: imports 3.0, data 2.0, network 4.0, trace 5.0, "
        "graph optimization 7.0, first step 0.5, other 1.0"
    )
    assert times.told() is None


def test_further_steps_of_the_first_launch_are_not_part_of_the_start(clock):
    times = StartTimes(clock=clock)
    launch(times, clock, 3, 10.0, compiler="XLA's compilation")
    launch(times, clock, 3, 6.0)
    assert times.told() == (
        "First step after 6.0 s: XLA's compilation 4.0, first step 2.0, other 0.0"
    )


def test_a_run_of_one_launch_does_not_tell_the_steps_from_the_preparations(clock):
    times = StartTimes(clock=clock)
    launch(times, clock, 2, 3.0)
    times.finish()
    times.finish()
    assert times.told() == "First step after 3.0 s: first launch 3.0, other 0.0"


def test_what_is_traced_later_belongs_to_no_start(clock):
    times = StartTimes(clock=clock)
    launch(times, clock, 1, 3.0)
    launch(times, clock, 1, 1.0)
    times.traced(clock.spend)(50)
    launch(times, clock, 1, 3.0)
    assert "trace" not in times.seconds


def test_a_function_is_timed_while_it_is_traced_and_not_while_it_runs(clock):
    times = StartTimes(clock=clock)

    def double(x):
        clock.spend(2)
        return 2 * x

    function = tf.function(times.traced(double))
    for _ in range(3):
        assert function(tf.constant(4.0)) == 8.0
    assert times.seconds == {"trace": 2.0}
