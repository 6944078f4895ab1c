"""Times a few steps of the training that a configuration asks for, in a process of its own.

Reads fields of `TrainConfig` from its standard input, as JSON; its last line is JSON as well.
"""

import json
import resource
import sys
import tempfile
import time

from keras_preact.support import startup

if __name__ == "__main__":
    startup.begin()

import tensorflow as tf

from keras_preact import training
from keras_preact.support.options import LARGEST
from keras_preact.training.reporting.propagation_recorder import PropagationRecorder

# A window of steps lasts as long, or has as many steps.
_WINDOW_SECONDS = 6.0
_MOST_STEPS = 4096
# Beyond the windows: none of them is cut short, or has an evaluation in it.
_NEVER = LARGEST // 4


class _MeasuredError(Exception):
    """Ends the training."""


class Stopwatch(training.Action):
    """Times the start, steps, the batch of an evaluation, and a record of signal and gradient.

    Attributes:
        figures: the measurements by name.
    """

    def __init__(self):
        self.figures: dict[str, float] = {}
        self._window, self._end, self._since, self._run = 1, 1, None, None

    def begin(self, run: training.Run) -> None:
        """Times a record, as a run makes one before its first step."""
        self._run, began = run, time.perf_counter()
        recorder = PropagationRecorder(run.state.network, run.data, run.config)
        recorder.measure(0)
        traced = time.perf_counter()
        recorder.measure(0)
        self.figures["record_seconds"] = time.perf_counter() - traced
        self.figures["first_record_seconds"] = traced - began

    def next_due(self, done: int) -> int | None:
        return self._end

    def run(self, done: int) -> None:
        """Ends a window; the first one compiles, and belongs to the start."""
        now = time.perf_counter()
        if self._since is None:
            records = self.figures["record_seconds"] + self.figures["first_record_seconds"]
            self.figures["start_seconds"] = now - startup.BEGAN - records
            ratio = 1.0
        else:
            seconds = now - self._since
            self.figures["step_seconds"] = seconds / self._window
            if seconds >= _WINDOW_SECONDS or self._window >= _MOST_STEPS:
                self._time_evaluation()
                raise _MeasuredError
            ratio = 1.1 * _WINDOW_SECONDS / seconds
        self._window = max(1, min(round(self._window * ratio), _MOST_STEPS))
        self._end = done + self._window
        self._since = time.perf_counter()

    def _time_evaluation(self):
        run, info = self._run, self._run.data.info
        batch = run.config.global_batch_size
        images = tf.zeros([batch, *info.image_shape])
        infer = tf.function(run.state.evaluated_logits, autograph=False)
        times = [time.perf_counter()]
        for _ in range(2):
            infer(images)
            times.append(time.perf_counter())
        first, second = times[1] - times[0], times[2] - times[1]
        self.figures |= {
            "trace_evaluation_seconds": first - second,
            "eval_batch_seconds": second,
            "eval_images": info.eval_count,
            "test_images": info.test_count,
            "train_images": info.train_count,
            "memory_bytes": _memory_bytes(),
        }


def measure(fields: dict) -> dict[str, float]:
    """Trains for some seconds in a temporary folder; returns the figures of a `Stopwatch`.

    Args:
        fields: of `TrainConfig`.
    """
    stopwatch = Stopwatch()
    unset = ("train_epochs", "scale_schedule", "resume")
    with tempfile.TemporaryDirectory() as folder:
        long = {"train_steps": _NEVER, "eval_epochs": _NEVER, "checkpoint_steps": _NEVER}
        fields = {name: value for name, value in fields.items() if name not in unset}
        config = training.TrainConfig(**{**fields, **long, "run_dir": f"{folder}/run"})
        try:
            training.run(config, actions=[stopwatch])
        except _MeasuredError:
            return stopwatch.figures
    raise AssertionError("the training has no end")


def _memory_bytes():
    """The most memory that this process has had: of the first GPU, where there is one."""
    if tf.config.list_physical_devices("GPU"):
        return tf.config.experimental.get_memory_info("GPU:0")["peak"]
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    given = json.load(sys.stdin)
    given = {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}
    print(json.dumps(measure(given)))
