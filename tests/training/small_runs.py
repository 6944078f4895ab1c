"""Tiny runs that tests harm on the way."""

import time

import tensorflow as tf
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
    """Passes the report of a step through harm(state, report), once; returns the steps taken."""
    original, calls = TrainStep.__call__, []

    def call(self, *arguments):
        report = original(self, *arguments)
        calls.append(len(calls) + 1)
        return harm(self.state, report) if calls[-1] == step else report

    patch.setattr(TrainStep, "__call__", call)
    return calls


def without_a_loss(report):
    """Sets the loss in a report to NaN."""
    return report + tf.constant([float("nan") if name == "loss" else 0.0 for name in REPORT])


def wait_for(path):
    """Waits until a file or folder is there."""
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.01)
