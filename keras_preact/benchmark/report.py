"""What a benchmark says: the table, the machine it ran on, and the CSV."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import io
import itertools
import textwrap
from collections.abc import Sequence

import keras
import tensorflow as tf

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.rows import COLUMNS, Row
from keras_preact.benchmark.runner import Outcome
from keras_preact.support.machine import cores, processor
from keras_preact.version import __version__

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
    "and without weight decay. torch: the same network, eager, channels_last.",
    "All images are noise in host memory: reading and augmenting are not measured.",
)


def text(outcome: Outcome, config: BenchmarkConfig) -> str:
    """Machine, peaks, table and notes, in lines of at most `WIDTH` characters."""
    steps = f"{config.steps} step" + ("s" if config.steps > 1 else "")
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


def machine_line(outcome: Outcome) -> str:
    """Processor, cores, GPUs and versions."""
    devices = [row.device for row in outcome.rows]
    devices += [peak.get("device") for peak in outcome.peaks.values()]
    gpus = sorted({device for device in devices if device} - {"CPU"})
    return ", ".join(
        [
            processor(),
            f"{cores()} core" + ("s" if cores() > 1 else ""),
            " and ".join(gpus) if gpus else "no GPU in use",
            f"keras_preact {__version__}",
            f"TensorFlow {tf.__version__}",
            f"Keras {keras.__version__}",
            *_pytorch(outcome),
        ]
    )


def csv_bytes(rows: Sequence[Row]) -> bytes:
    """A line of column names, and one for each row; empty where a figure is missing."""
    lines = io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return lines.getvalue().encode()


def is_csv(first: bytes) -> bool:
    """Whether a file that begins so is what `csv_bytes` gives."""
    line, newline, _ = first.partition(b"\n")
    return bool(newline) and line.rstrip(b"\r").decode(errors="replace") == ",".join(COLUMNS)


def _pytorch(outcome):
    """Read without importing it, which would take seconds."""
    if any(row.framework == "torch" for row in outcome.rows):
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
    # Frameworks that see different devices must not look as if they were compared.
    mixed = len({row.device for row in rows} - {None}) > 1
    lines = [("", *(header for header, *_ in columns))]
    for row in rows:
        values = [(getattr(row, name), pattern) for _, name, pattern in columns]
        cells = ("" if value is None else pattern.format(value) for value, pattern in values)
        device = f" on {row.device}" if mixed and row.device else ""
        lines.append((f"  {row.framework}{device}", *cells))
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    header, *body = (_join(line, widths) for line in lines)
    group = None
    yield header
    for row, line in zip(rows, body, strict=True):
        if (row.model, row.precision, row.mode) != group:
            group = (row.model, row.precision, row.mode)
            size = f"{row.image_pixels} x {row.image_pixels}"
            yield f"{' '.join(group)}, batches of {row.batch_size} images of {size} pixels"
        yield line.rstrip()
        if row.error:
            yield f"    {_shorten(f'failed: {row.error}')}"


def _join(cells, widths):
    name, *figures = cells
    aligned = (cell.rjust(width) for cell, width in zip(figures, widths[1:], strict=True))
    return "  ".join([name.ljust(widths[0]), *aligned])


def _shorten(line):
    """Of an error, whose full text is in the CSV."""
    return textwrap.shorten(line, WIDTH - 4, placeholder=" ...")
