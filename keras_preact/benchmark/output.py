"""The files of a benchmark, which replace those of an earlier one and nothing else."""

from keras_preact.benchmark import plot, report
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.runner import Outcome
from keras_preact.support.files import write_whole
from keras_preact.support.paths import is_regular

# Both kinds can be told by so many bytes.
_FIRST_BYTES = 4096


def check(config: BenchmarkConfig) -> None:
    """Raises ValueError, before hours of measuring, where a file is in the way."""
    files = (("csv", config.csv_path, report.is_csv), ("plot", config.plot_path, plot.is_png))
    for flag, path, is_ours in files:
        if path is not None and not _may_be_replaced(path, is_ours):
            raise ValueError(
                f"{flag} must be a new file, or that of an earlier benchmark, which alone is "
                f"replaced. Received: {flag}={path}, which is another"
            )


def _may_be_replaced(path, is_ours):
    if not path.exists():
        return True
    if not is_regular(path):
        return False
    with path.open("rb") as file:
        first = file.read(_FIRST_BYTES)
    return not first or is_ours(first)


def hand_over(outcome: Outcome, config: BenchmarkConfig) -> None:
    """Writes the CSV and the picture, and prints the table."""
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
