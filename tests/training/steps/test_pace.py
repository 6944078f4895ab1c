import pytest

from keras_preact.training.steps.pace import Pace


def test_one_step_is_taken_until_its_time_is_known():
    pace = Pace(most=256)
    assert pace.next == 1
    pace.update(0.0)
    assert pace.next == 1


@pytest.mark.parametrize(
    ("seconds_per_step", "steps"), [(0.01, 200), (0.3, 6), (2.0, 1), (60.0, 1), (1e-5, 256)]
)
def test_a_launch_holds_two_seconds_but_one_step_at_least_and_no_more_than_allowed(
    seconds_per_step, steps
):
    pace = Pace(most=256)
    pace.update(seconds_per_step)
    assert pace.next == steps


def test_the_pace_follows_a_machine_that_slows_down():
    pace = Pace(most=256)
    pace.update(0.1)
    pace.update(1.0)
    assert pace.next == 2


def test_a_fixed_number_stays_and_is_bounded():
    pace = Pace(most=256, fixed=7)
    pace.update(10.0)
    assert pace.next == 7
    assert Pace(most=256, fixed=1000).next == 256
