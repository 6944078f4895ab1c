"""The best evaluation, and when to stop for want of a better one."""

import dataclasses
import math

import numpy as np
import pytest

from keras_preact.training.checkpoints.run_state import RunState
from keras_preact.training.monitor import Monitor
from keras_preact.training.steps.scores import Scored


@dataclasses.dataclass
class Figures(Scored):
    scores: dict


def monitor(figure="accuracy", patience=None, steps_per_epoch=10):
    return Monitor(figure, patience, lambda step: step // steps_per_epoch)


def test_the_first_evaluation_is_the_best_and_equal_ones_are_not_better():
    follows = monitor()
    assert not math.isfinite(follows.best_score)
    assert [
        follows.add(Figures({"accuracy": value}), step)
        for step, value in enumerate((0.0, 0.5, 0.5, 0.4, 0.6), 1)
    ] == [True, True, False, False, True]
    assert (follows.best_score, follows.best_step) == (0.6, 5)


def test_a_smaller_loss_is_better():
    follows = monitor("loss")
    values = (2.0, 3.0, 1.5)
    assert [follows.add(Figures({"loss": value}), 0) for value in values] == [True, False, True]


def test_a_run_stops_once_so_many_epochs_have_brought_nothing_better():
    values = np.random.default_rng(0).random(60)
    for patience in (1, 3, 5):
        follows, stopped, since = monitor(patience=patience), [], 0
        best = -1.0
        # Evaluations after the first step that completes an epoch, which has 9.7 steps.
        follows.epoch = lambda step: int(step / 9.7)
        for number, value in enumerate(values, 1):
            step = math.ceil(number * 9.7)
            follows.add(Figures({"accuracy": value}), step)
            since, best = (0, value) if value > best else (since + 1, best)
            stopped.append(follows.stops(step))
            assert stopped[-1] == (since >= patience)
        assert any(stopped) and not all(stopped)


def test_without_patience_nothing_stops():
    follows = monitor()
    follows.add(Figures({"accuracy": 1.0}), 10)
    assert not follows.stops(10**9)


@pytest.mark.parametrize("figure", ["accuracy", "loss"])
def test_a_monitor_goes_on_from_a_run_state(figure):
    first, again = monitor(figure), monitor(figure)
    assert first.saved() == {}
    again.restore(RunState(step=7, **first.saved()))
    assert again.add(Figures({figure: 0.0}), 9)
    first.add(Figures({figure: 3.0}), 12)
    again.restore(RunState(step=40, **first.saved()))
    assert (again.best_score, again.best_step) == (first.best_score, 12)


def test_a_run_state_of_an_earlier_version_has_the_accuracy_alone():
    follows = monitor()
    follows.restore(RunState(step=40, best_score=0.75))
    assert (follows.best_score, follows.best_step) == (0.75, 40)
    assert not follows.add(Figures({"accuracy": 0.7}), 50)


@pytest.mark.parametrize(
    ("figure", "value", "words"),
    [
        ("macro_f1", 0.93061, "macro F1 has not improved for 3 epochs; the best, 93.06% at step"),
        ("loss", 0.25, "loss has not improved for 3 epochs; the best, 0.2500 at step 1,200, is"),
    ],
)
def test_the_reason_is_told(figure, value, words):
    follows = monitor(figure, 3)
    follows.add(Figures({figure: value}), 1200)
    assert words in str(follows) and "--checkpoint=best" in str(follows)
