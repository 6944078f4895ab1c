"""The output of a benchmark: the table, the machine it ran on, the CSV and the picture."""

import contextlib
import importlib.metadata
import itertools
import textwrap
from collections.abc import Iterable

import keras
import tensorflow as tf

from keras_preact.benchmark import plot
from keras_preact.benchmark.config import OF_TORCH, SCALING_LEAST_STEPS, BenchmarkConfig
from keras_preact.benchmark.input import run as input_run
from keras_preact.benchmark.input.run import InputOutcome, InputRow
from keras_preact.benchmark.measure import ENOUGH_SECONDS, LEAST_STEPS
from keras_preact.benchmark.overhead import table as overhead_table
from keras_preact.benchmark.overhead.run import OverheadOutcome, OverheadRow
from keras_preact.benchmark.rows import Row, csv_bytes, is_csv
from keras_preact.benchmark.runner import Outcome
from keras_preact.benchmark.scaling import plot as scaling_plot
from keras_preact.benchmark.scaling import table as scaling_table
from keras_preact.benchmark.scaling.run import ScalingOutcome, ScalingRow
from keras_preact.benchmark.server import table as load_table
from keras_preact.benchmark.server.rows import LoadRow
from keras_preact.benchmark.server.run import LoadOutcome
from keras_preact.support.files import write_whole
from keras_preact.support.machine import cores, processor
from keras_preact.support.paths import is_regular
from keras_preact.support.text import aligned
from keras_preact.version import __version__

# Enough to recognize a CSV and a picture of an earlier benchmark.
_FIRST_BYTES = 4096

WIDTH = 98
NOTES = (
    "ours/this: images/s of keras_preact over this row's, by the medians.",
    "first step: from the start of building the network to the first result; imports before it "
    "are not counted.",
    "memory: the largest resident memory of the process. GPU: what the framework allocated there.",
    "of peak: the arithmetic of convolutions and logits (two operations a multiply-add; training "
    "three times inference) over that of the large matrix product above.",
    "keras_preact: this package's training step; inference from uint8 images, normalized in the "
    "graph; what export.py writes, in a session as TensorFlow Serving runs it. keras: model.fit, "
    "model.predict and model.export of the same network of keras.layers, with jit_compile='auto' "
    "and without weight decay. torch: the same network, eager, channels_last, with autocast, on "
    "GPUs with cudnn.benchmark and from pinned memory. torch_compile: that network through "
    "torch.compile, which keeps what it compiled on the disk: after the first round its first "
    "step is shorter.",
    "All images are noise in host memory, as uint8, and normalized where the network runs (stock "
    "Keras' exports take float32): reading and augmenting are not measured. In float32 on GPUs, "
    "convolutions use TF32, as is each framework's default.",
)


AnyOutcome = Outcome | LoadOutcome | InputOutcome | OverheadOutcome | ScalingOutcome


def check(config: BenchmarkConfig) -> None:
    """Raises ValueError where a file is in the way: before hours of measuring."""
    files = (("csv", config.csv_path, _is_our_csv), ("plot", config.plot_path, plot.is_png))
    for flag, path, is_ours in files:
        if path is not None and not _may_be_replaced(path, is_ours):
            raise ValueError(
                f"{flag} must be a new file, or that of an earlier benchmark: no other file is "
                f"replaced. Received: {flag}={path}, another file"
            )


def _is_our_csv(first):
    return any(is_csv(first, kind) for kind in (Row, LoadRow, InputRow, OverheadRow, ScalingRow))


def _may_be_replaced(path, is_ours):
    if not path.exists():
        return True
    if not is_regular(path):
        return False
    with path.open("rb") as file:
        first = file.read(_FIRST_BYTES)
    return not first or is_ours(first)


def hand_over(outcome: AnyOutcome, config: BenchmarkConfig) -> None:
    """Writes the CSV and the picture, and prints the table."""
    written = []
    try:
        write_whole(config.csv_path, csv_bytes(outcome.rows, type(outcome.rows[0])))
        written.append(config.csv_path)
        if config.plot_path:
            draw = scaling_plot if config.measures_scaling else plot
            write_whole(config.plot_path, draw.png(outcome.rows, machine_line(outcome)))
            written.append(config.plot_path)
    finally:
        # The table is printed even if writing fails: nobody wants to measure again.
        lines = [text(outcome, config), "", *(f"Written: {path}" for path in written)]
        print("\n".join(lines))


def text(outcome: AnyOutcome, config: BenchmarkConfig) -> str:
    """Machine, peaks, table and notes, in lines of at most `WIDTH` characters."""
    if config.measures_input:
        table = input_run.lines(outcome, config, WIDTH)
        return "\n".join([*textwrap.wrap(_machine([]), WIDTH), "", *table])
    if config.measures_overhead:
        machine = _machine(_gpus(row.device for row in outcome.rows))
        table = overhead_table.lines(outcome.rows, WIDTH)
        return "\n".join([*textwrap.wrap(machine, WIDTH), "", *table])
    if config.measures_scaling:
        table = scaling_table.lines(outcome.rows, WIDTH)
        steps = _steps(config.steps, SCALING_LEAST_STEPS)
        rounds = "process" if config.rounds == 1 else "processes, in turn with the others: medians"
        measured = f"Each figure is of {config.rounds} {rounds}; later steps are {steps} after a "
        measured = textwrap.wrap(f"{measured}warm-up. Other load moves every figure.", WIDTH)
        return "\n".join([*textwrap.wrap(machine_line(outcome), WIDTH), "", *table, *measured])
    if config.measures_server:
        machine = _machine([], [outcome.version or "a server that does not tell its version"])
        table = load_table.lines(outcome.rows, config, WIDTH)
        return "\n".join([*textwrap.wrap(machine, WIDTH), "", *table])
    steps = _steps(config.steps)
    rounds = (
        "images/s is a single measurement"
        if config.rounds == 1
        else f"images/s is the median of {config.rounds} processes in turn with the other "
        "frameworks', low and high are the extremes"
    )
    noise = (
        f"{rounds}; each timed {steps} after a warm-up. Other load on the machine moves every "
        "figure, the peaks included."
    )
    notes = itertools.chain(
        *(textwrap.wrap(note, WIDTH, subsequent_indent="  ") for note in (noise, *NOTES))
    )
    parts = [*textwrap.wrap(machine_line(outcome), WIDTH), *_peaks(outcome), ""]
    if "torch" not in config.chosen_frameworks and config.frameworks is None:
        parts.insert(-1, "PyTorch is not installed, so it is left out.")
    return "\n".join([*parts, *_table(outcome.rows), "", *notes])


def _steps(steps, least_steps=LEAST_STEPS):
    if steps is None:
        return f"{least_steps} steps, or as many as take {ENOUGH_SECONDS:g} seconds,"
    return f"{steps} step" + ("s" if steps > 1 else "")


def machine_line(outcome: Outcome | ScalingOutcome) -> str:
    """Processor, cores, GPUs and versions."""
    devices = [row.device for row in outcome.rows]
    if isinstance(outcome, Outcome):
        devices += [peak.get("device") for peak in outcome.peaks.values()]
    return _machine(_gpus(devices), _pytorch(outcome))


def _gpus(devices):
    gpus = sorted({device for device in devices if device} - {"CPU"})
    return [" and ".join(gpus) if gpus else "no GPU in use"]


def _machine(devices: Iterable[str], programs: Iterable[str] = ()) -> str:
    parts = [processor(), f"{cores()} core" + ("s" if cores() > 1 else ""), *devices]
    parts += [f"keras_preact {__version__}", f"TensorFlow {tf.__version__}"]
    return ", ".join([*parts, f"Keras {keras.__version__}", *programs])


def _pytorch(outcome):
    # Importing it to ask for its version would take seconds.
    if any(row.framework in OF_TORCH for row in outcome.rows):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            yield f"PyTorch {importlib.metadata.version('torch')}"


def _peaks(outcome):
    for precision, peak in outcome.peaks.items():
        if "error" in peak:
            yield _shorten(f"Arithmetic peak in {precision}: not measured; {peak['error']}")
        else:
            yield (
                f"Arithmetic peak in {precision}: {peak['peak_teraflops']:.3g} TFLOP/s, the best "
                f"product of two {peak['size']} x {peak['size']} matrices"
            )


def _table(rows):
    columns = [
        ("images/s", "images_per_second", "{:,.1f}"),
        ("low", "lowest_images_per_second", "{:,.1f}"),
        ("high", "highest_images_per_second", "{:,.1f}"),
        ("ours/this", "keras_preact_times", "{:.2f}"),
        ("first step", "first_step_seconds", "{:.2f} s"),
        ("memory", "peak_memory_mebibytes", "{:,.0f} MiB"),
        ("GPU", "device_memory_mebibytes", "{:,.0f} MiB"),
        ("of peak", "share_of_peak", "{:.1%}"),
    ]
    if all(row.device_memory_mebibytes is None for row in rows):
        columns = [column for column in columns if column[0] != "GPU"]
    # Figures of different devices must not look comparable.
    mixed = len({row.device for row in rows} - {None}) > 1
    lines = []
    for row in rows:
        values = [(getattr(row, name), pattern) for _, name, pattern in columns]
        cells = ("" if value is None else pattern.format(value) for value, pattern in values)
        device = f" on {row.device}" if mixed and row.device else ""
        lines.append((f"  {row.framework}{device}", *cells))
    titles = ("", *(title for title, *_ in columns))
    header, *body = aligned(titles, lines, numbers_from=1, indent="").split("\n")
    group = None
    yield header
    for row, line in zip(rows, body, strict=True):
        if (row.model, row.precision, row.mode) != group:
            group = (row.model, row.precision, row.mode)
            size = f"{row.image_pixels} x {row.image_pixels}"
            yield f"{' '.join(group)}, batches of {row.batch_size} images of {size} pixels"
        yield line
        if row.error:
            yield f"    {_shorten(f'failed: {row.error}')}"


def _shorten(line):
    """Cuts an error; its full text is in the CSV."""
    return textwrap.shorten(line, WIDTH - 4, placeholder=" ...")
