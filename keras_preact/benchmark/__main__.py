"""Measures training, inference, serving and input beside stock Keras, PyTorch and others."""

import sys

import tensorflow as tf

from keras_preact.benchmark import output, runner
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.input.run import run as read_photographs
from keras_preact.benchmark.overhead.run import run as measure_overhead
from keras_preact.benchmark.scaling.run import run as measure_scaling
from keras_preact.benchmark.server.run import run as load_servers
from keras_preact.support import program
from keras_preact.support.errors import RunError


def main(given: dict, run=None) -> None:
    # The GPUs' memory is for the processes that measure.
    tf.config.set_visible_devices([], "GPU")
    config = BenchmarkConfig(**given)
    output.check(config)
    if run is None:
        run = load_servers if config.measures_server else runner.run
        run = read_photographs if config.measures_input else run
        run = measure_overhead if config.measures_overhead else run
        run = measure_scaling if config.measures_scaling else run
    outcome = run(config, say=lambda line: print(line, file=sys.stderr, flush=True))
    output.hand_over(outcome, config)
    if all(row.error for row in outcome.rows):
        raise RunError("not one measurement succeeded; the table says why.")


def start(command: str = "python -m keras_preact.benchmark") -> None:
    """Runs the program and ends the process; see `program.start`."""
    program.start(main, BenchmarkConfig, __doc__, "nothing has been written", command)


if __name__ == "__main__":
    start()
