"""Tiny runs that tests harm on the way."""

import time

import numpy as np
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from keras_preact.training import Action, TrainConfig
from keras_preact.training.steps.train_step import REPORT, TrainStep

# The digits have 1,437 training images.
SMALL = TrainConfig(
    dataset="digits", depth=8, global_batch_size=128, train_steps=6, warmup_steps=3, log_steps=2
)


def small(folder, **changes):
    return SMALL.updated(run_dir=str(folder), **changes)


def events(folder, split="train"):
    """Reads what TensorBoard shows of a run, with the code of its server."""
    accumulator = EventAccumulator(str(folder / "tensorboard" / split), {"tensors": 0})
    accumulator.Reload()
    return accumulator


def steps_shown(folder, split, name):
    return [event.step for event in events(folder, split).Tensors(name)]


class AtStep(Action):
    """Calls a function once, after a step and before saving."""

    def __init__(self, step, function):
        self._step, self._function = step, function

    def next_due(self, done):
        return self._step if done < self._step else None

    def run(self, done):
        self._function()


def harmed_at_step(patch, step, harm):
    """Passes the reports of a launch through harm(state, rows), once: of that with a step.

    Returns:
        The steps taken, counted from 1.
    """
    original, calls = TrainStep.__call__, []

    def call(self, batches, start, steps, *arguments):
        rows = original(self, batches, start, steps, *arguments)
        before = len(calls)
        calls.extend(range(before + 1, before + steps + 1))
        return harm(self.state, rows) if before < step <= len(calls) else rows

    patch.setattr(TrainStep, "__call__", call)
    return calls


def without_a_loss(rows):
    """Sets the loss in the newest report to NaN."""
    rows = rows.copy()
    rows[-1, REPORT.index("loss")] = np.nan
    return rows


def wait_for(path):
    """Waits until a file or folder is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)
