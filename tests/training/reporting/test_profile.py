"""Which steps TensorBoard's profile sees."""

import pytest
import tensorflow as tf

from keras_preact.training.reporting.profile import Profile


@pytest.fixture
def profiler(monkeypatch):
    """What was asked of TensorFlow's profiler."""
    asked = []
    monkeypatch.setattr(tf.profiler.experimental, "start", lambda folder: asked.append(folder))
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: asked.append("stop"))
    return asked


def recorded(profile, profiler, steps):
    """The steps taken while the profiler ran; steps are the ends of what is taken at once."""
    seen, done = [], 0
    for end in steps:
        profile.before(done + 1)
        if profiler and profiler[-1] != "stop":
            seen += range(done + 1, end + 1)
        profile.after(end)
        done = end
    return seen


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 3), (4, 7), (10, 10)])
def test_the_steps_from_the_first_to_the_last_are_recorded(profiler, tmp_path, first, last):
    profile = Profile((first, last), tmp_path)
    assert recorded(profile, profiler, range(1, 11)) == list(range(first, last + 1))
    assert profiler == [str(tmp_path), "stop"]


def test_several_steps_taken_at_once_are_recorded_whole(profiler, tmp_path):
    assert recorded(Profile((4, 8), tmp_path), profiler, [3, 6, 8, 12]) == [4, 5, 6, 7, 8]
    assert profiler == [str(tmp_path), "stop"]


def test_without_steps_nothing_is_recorded(profiler, tmp_path):
    assert recorded(Profile(None, tmp_path), profiler, range(1, 11)) == []
    assert profiler == []


def test_a_run_that_goes_on_behind_the_first_step_records_nothing(profiler, tmp_path):
    profile = Profile((2, 4), tmp_path)
    profile.before(3)
    profile.after(3)
    profile.before(4)
    profile.after(4)
    assert profiler == []
