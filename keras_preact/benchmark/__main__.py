"""Measures training and inference beside stock Keras and PyTorch, on synthetic images."""

import signal
import sys

import tensorflow as tf
from absl import app

from keras_preact.benchmark import plot, report, runner
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.training import flags
from keras_preact.training.files import write_whole

COMMAND = "-m keras_preact.benchmark"


def main(_) -> None:
    # As Ctrl-C does, so that the process that measures ends too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # The GPUs' memory is for the processes that measure.
    tf.config.set_visible_devices([], "GPU")
    try:
        config = BenchmarkConfig(**flags.given(BenchmarkConfig))
        outcome = runner.run(config, say=lambda line: print(line, file=sys.stderr, flush=True))
        _hand_over(outcome, config)
    except (ValueError, OSError) as error:
        flags.fail(str(error))
    except KeyboardInterrupt:
        flags.fail("interrupted; nothing has been written.", code=130)
    if all(row.error for row in outcome.rows):
        flags.fail("not one measurement succeeded; the table says why.", code=1)


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
    flags.define(BenchmarkConfig)
    arguments = [COMMAND, *sys.argv[1:]]
    app.run(main, argv=arguments, flags_parser=flags.parser(__doc__, BenchmarkConfig))
