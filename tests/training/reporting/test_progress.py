"""The bar and the lines of a run, by a clock that the test sets."""

import io
import math
import sys

import pytest

from keras_preact.support.console import say
from keras_preact.training.reporting import progress
from keras_preact.training.reporting.progress import Progress
from keras_preact.training.steps.step_metrics import Means


class Clock:
    def __init__(self):
        self.now = 1000.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def means(steps, **changes):
    values = dict(loss=1.23456, accuracy=0.5, gradient_norm=1.0, loss_scale=1.0)
    return Means(**{"steps": steps, **values, "skipped_steps": 0, "wait_seconds": 0.0, **changes})


def test_a_line_tells_speed_waiting_and_the_time_left(clock, capsys):
    shown = Progress(0, 1100, global_batch_size=64)
    shown.advance(100)
    clock.now += 5
    rate, waiting = shown.interval(100, means(100, wait_seconds=1.25), learning_rate=0.1)
    # 6,400 images in 5 s; 64,000 are left.
    assert (rate, waiting) == (1280, 0.25)
    out, err = capsys.readouterr()
    assert out == (
        "step 100 of 1,100: loss 1.2346, accuracy 50.00%, learning rate 0.1, "
        "1,280 images/s, 25% waiting for input, 0:00:50 left\n"
    )
    assert err == ""


def test_each_interval_is_timed_for_itself(clock):
    shown = Progress(0, 100, 10, quiet=True)
    rates = []
    for steps, seconds in ((10, 1), (30, 2), (10, 4)):
        shown.advance(steps)
        clock.now += seconds
        rates.append(shown.interval(0, means(steps), 0.1)[0])
    assert rates == [100, 150, 25]
    # 500 images in 7 seconds; then none.
    assert shown.mean_rate() == pytest.approx(500 / 7)
    assert shown.mean_rate() == 0


def test_what_is_not_training_is_not_timed(clock):
    shown = Progress(0, 100, 10, quiet=True)
    shown.advance(1)
    clock.now += 60  # compiling
    shown.restart_clock()
    shown.advance(9)
    clock.now += 3
    # 9 of 10 steps were timed, and 9/10 of the waiting.
    rate, waiting = shown.interval(10, means(10, wait_seconds=1.0), 0.1)
    assert (rate, waiting) == (30, pytest.approx(0.9 / 3))
    clock.now += 60  # evaluating
    shown.restart_clock()
    shown.advance(10)
    clock.now += 1
    assert shown.interval(20, means(10), 0.1)[0] == 100
    assert shown.mean_rate() == pytest.approx(190 / 4)


def test_without_timed_steps_no_time_is_shown(clock, capsys):
    shown = Progress(0, 100, 10)
    shown.advance(1)
    shown.restart_clock()
    clock.now += 1
    assert shown.interval(1, means(1, wait_seconds=3.0), 0.01) == (0, 0)
    line = "step 1 of 100: loss 1.2346, accuracy 50.00%, learning rate 0.01\n"
    assert capsys.readouterr().out == line


def test_waiting_is_at_most_all_of_the_time(clock):
    shown = Progress(0, 100, 10, quiet=True)
    shown.advance(10)
    clock.now += 1
    assert shown.interval(10, means(10, wait_seconds=1.5), 0.1)[1] == 1


def test_steps_that_overflowed_are_shown(clock, capsys):
    shown = Progress(0, 100, 10)
    shown.advance(10)
    clock.now += 1
    shown.interval(10, means(10, skipped_steps=3), 0.1)
    assert capsys.readouterr().out.endswith("0:00:09 left, 3 steps overflowed\n")


def test_an_unmeasured_share_of_waiting_is_not_shown(clock, capsys):
    shown = Progress(0, 100, 10)
    shown.advance(10)
    clock.now += 1
    _, waiting = shown.interval(10, means(10, wait_seconds=math.nan), 0.1)
    assert math.isnan(waiting)
    assert capsys.readouterr().out.endswith("learning rate 0.1, 100 images/s, 0:00:09 left\n")


@pytest.mark.parametrize(("quiet", "show"), [(True, True), (False, False), (True, False)])
def test_the_figures_are_there_where_nothing_is_printed(clock, capsys, quiet, show):
    shown = Progress(0, 100, 10, quiet=quiet)
    shown.advance(10)
    clock.now += 1
    assert shown.interval(10, means(10), 0.1, show=show) == (100, 0)
    shown.close()
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_a_bar_shows_the_same(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress(40, 100, 10)
    shown.advance(10)
    clock.now += 2
    shown.interval(50, means(10), 0.1)
    say("evaluated")
    shown.close()
    bar = sys.stderr.getvalue()
    assert "50%|" in bar and " 50/100" in bar
    assert "loss 1.2346 acc 50.0% lr 0.1 50 img/s 0:00:10 left" in bar
    first, *_, last = (line for line in bar.split("\r") if line.strip())
    assert first.endswith("40/100, compiling the first step") and "compiling" not in last
    assert capsys.readouterr().out == "evaluated\n"


def test_the_longest_bar_fits_a_terminal_of_80_characters(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress(0, 64_000, 128)
    shown.advance(10)
    clock.now += 2
    shown.interval(10, means(10), 0.01)
    shown.close()
    assert max(map(len, sys.stderr.getvalue().split("\r"))) <= 80


def test_a_rollback_sets_the_bar_back_and_restarts_the_timing(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress(0, 100, 10)
    shown.advance(60)
    clock.now += 60  # on steps to be repeated
    shown.set_back(40)
    assert " 40/100" in sys.stderr.getvalue()
    shown.advance(10)
    clock.now += 2
    assert shown.interval(50, means(10), 0.1) == (50, 0)
    shown.close()
    assert " 50/100" in sys.stderr.getvalue().rpartition("\r")[2]


def test_quiet_shows_no_bar_on_a_terminal_either(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress(0, 100, 10, quiet=True)
    shown.advance(10)
    clock.now += 2
    shown.interval(10, means(10), 0.1)
    shown.close()
    assert sys.stderr.getvalue() == ""
