"""Measures training and inference beside stock Keras and PyTorch, on synthetic images."""

import sys

import tensorflow as tf

from keras_preact.benchmark import plot, report, runner
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.training import program
from keras_preact.training.errors import RunError
from keras_preact.training.files import write_whole

COMMAND = "-m keras_preact.benchmark"


def main(given: dict) -> None:
    # The GPUs' memory is for the processes that measure.
    tf.config.set_visible_devices([], "GPU")
    config = BenchmarkConfig(**given)
    outcome = runner.run(config, say=lambda line: print(line, file=sys.stderr, flush=True))
    _hand_over(outcome, config)
    if all(row.error for row in outcome.rows):
        raise RunError("not one measurement succeeded; the table says why.")


def _hand_over(outcome, config):
    written = []
    try:
        write_whole(config.csv_path, report.csv_bytes(outcome.rows))
        written.append(config.csv_path)
        if config.plot_path:
            write_whole(config.plot_path, plot.png(outcome.rows, report.machine_line(outcome)))
            written.append(config.plot_path)
    finally:
        # Whatever became of the files: nobody wants to measure again.
        lines = [report.text(outcome, config), "", *(f"Written: {path}" for path in written)]
        print("\n".join(lines))


if __name__ == "__main__":
    program.start(main, BenchmarkConfig, __doc__, "nothing has been written", COMMAND)
