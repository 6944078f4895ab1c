"""Saving in a thread, and its failures."""

import errno
import threading

import pytest
import tensorflow as tf

from keras_preact.training import SaveError
from keras_preact.training.checkpoints.background import Saving


def failing(times, error):
    """Returns a job that fails some times, and the list of its calls."""
    calls = []

    def job():
        calls.append(len(calls))
        if len(calls) <= times:
            raise error

    return job, calls


def make(lines):
    return Saving(lines.append, retry_seconds=0.01)


FULL = OSError(errno.ENOSPC, "No space left on device")
# In TensorFlow's words.
FULL_TOO = tf.errors.ResourceExhaustedError(
    None, None, "{{function_node x}} /run/y.tempstate1; No space left on device [Op:SaveV2]"
)


def test_the_caller_goes_on_while_a_job_runs_and_never_two_run_at_once():
    saving, may_end, running = make([]), threading.Event(), []

    def job():
        running.append(1)
        assert len(running) == 1
        assert may_end.wait(10)
        running.pop()

    saving.start("step 1", job)
    saving.check()
    threading.Timer(0.05, may_end.set).start()
    saving.start("step 2", job)
    saving.wait()
    assert may_end.is_set() and not running


@pytest.mark.parametrize("error", [FULL, FULL_TOO])
def test_a_job_that_fails_once_is_announced_and_tried_again(error):
    lines = []
    saving, (job, calls) = make(lines), failing(1, error)
    saving.start("step 40", job)
    saving.wait()
    assert len(calls) == 2
    assert lines[0].startswith("Could not save step 40: No space left on device. Earlier check")
    assert lines[1] == "Saved step 40 at the second attempt."


@pytest.mark.parametrize("use", [Saving.wait, Saving.check, lambda s: s.start("more", print)])
def test_a_job_that_fails_twice_ends_the_run_wherever_it_is_noticed(use):
    saving, (job, calls) = make([]), failing(2, FULL)
    saving.start("step 40", job)
    saving._job.exception()  # both attempts are over
    with pytest.raises(SaveError, match="Could not save step 40, twice in a row: No space left"):
        use(saving)
    assert len(calls) == 2
    assert SaveError.exit_code == 74


def test_a_mistake_in_a_job_is_not_taken_for_a_full_disk():
    saving, (job, calls) = make([]), failing(1, KeyError("oops"))
    saving.start("step 40", job)
    with pytest.raises(KeyError):
        saving.wait()
    assert len(calls) == 1


def test_waiting_for_nothing_returns_at_once():
    saving = make([])
    saving.wait()
    saving.check()
