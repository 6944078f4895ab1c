"""The table of mode scaling, with what follows from it: growth, ratios and the memory formula."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from keras_preact.benchmark.scaling.run import ScalingRow
from keras_preact.support.text import aligned, printable

NOTES = (
    "A word behind the framework tells what it computes twice; see --remat. build: seconds until "
    "network, optimizer and training step exist, without imports. first: seconds of the first "
    "step. compile: those of them beyond a later step, which are tracing, graph optimisation and, "
    "with XLA, its compiler; stock Keras makes its optimizer there too. start: build and first.",
    "step: milliseconds of a later step. us/layer: its microseconds for each layer.",
    "memory: the largest resident memory of the process in MiB. GPU: what the framework allocated "
    "there, in its place. a layer: what memory grew by after the network was built, or the memory "
    "on the GPU, for each layer.",
    "keras_preact: this package's training step. keras: model.fit of the same network of "
    "keras.layers with jit_compile='auto'. torch: the same network, eager, channels_last, with "
    "autocast; torch unit sends every unit through torch.utils.checkpoint. Images are noise.",
)
_FIGURES = (
    ("build", "build_seconds", "{:.1f}"),
    ("first", "first_step_seconds", "{:.1f}"),
    ("compile", "compile_seconds", "{:.1f}"),
    ("start", "start_seconds", "{:.1f}"),
    ("step", "step_milliseconds", "{:,.0f}"),
    ("us/layer", "layer_microseconds", "{:,.0f}"),
    ("images/s", "images_per_second", "{:,.1f}"),
    ("memory", "peak_memory_mebibytes", "{:,.0f}"),
    ("GPU", "device_memory_mebibytes", "{:,.0f}"),
    ("a layer", "layer_memory_mebibytes", "{:.2f}"),
)


def lines(rows: Sequence[ScalingRow], width: int) -> Iterator[str]:
    """The table, what follows from it, and notes, in lines of at most `width` characters."""
    yield from _table(rows, width)
    for title, found in (
        ("Growth, times", _growth(rows)),
        ("Ratios to keras", _ratios(rows, "keras")),
        ("Ratios to torch", _ratios(rows, "torch")),
        ("Memory of a step beyond that of the built network, MiB", _formula(rows)),
    ):
        if found:
            head, *body = found
            yield from ("", aligned((title, *head), body, numbers_from=1, indent=""))
    yield ""
    for note in NOTES:
        yield from textwrap.wrap(note, width, subsequent_indent="  ")


def _table(rows, width):
    # Figures of different devices must not look comparable.
    mixed = len({row.device for row in rows} - {None}) > 1
    on_gpu = any(row.device_memory_mebibytes is not None for row in rows)
    # A line has no room for both; the CSV has them.
    left_out = () if mixed else ("memory",) if on_gpu else ("GPU",)
    columns = [column for column in _FIGURES if column[0] not in left_out]
    cells = []
    for row in rows:
        device = f" on {row.device}" if mixed and row.device else ""
        figures = ((getattr(row, name), pattern) for _, name, pattern in columns)
        texts = ("" if value is None else pattern.format(value) for value, pattern in figures)
        cells.append((f"  {_name(row)}{device}", *texts))
    titles = ("", *(title for title, *_ in columns))
    header, *body = aligned(titles, cells, numbers_from=1, indent="").split("\n")
    yield header
    pairs = zip(rows, body, strict=True)
    for title, group in itertools.groupby(pairs, key=lambda pair: _title(pair[0])):
        yield from textwrap.wrap(title, width)
        for row, line in group:
            yield line
            if row.error:
                text = f"failed: {printable(row.error)}"
                yield f"    {textwrap.shorten(text, width - 4, placeholder=' ...')}"


def _name(row):
    return row.framework if row.remat == "none" else f"{row.framework} {row.remat}"


def _bits(row):
    return row.precision.removeprefix("mixed_")


def _title(row):
    images = "image" if row.batch_size == 1 else "images"
    return (
        f"{row.depth} layers, {row.units} {row.block} units, {row.precision}, batches of "
        f"{row.batch_size} {images} of {row.image_pixels} x {row.image_pixels} pixels"
    )


def _measured(rows):
    return [row for row in rows if row.start_seconds is not None]


def _growth(rows):
    """From each depth to the greatest that the same program has reached with the same block."""
    groups, found = {}, []
    for row in _measured(rows):
        groups.setdefault((row.label, row.precision, row.block), []).append(row)
    for group in groups.values():
        *shallower, deepest = sorted(group, key=lambda row: row.depth)
        names = ("build_seconds", "compile_seconds", "start_seconds", "step_milliseconds")
        found += [
            (
                f"  {_name(row)} {_bits(row)}, {row.block} {row.depth} to {deepest.depth}",
                f"{deepest.depth / row.depth:.2f}",
                *(_ratio(deepest, row, name) for name in (*names, _memory(deepest, row))),
            )
            for row in shallower
        ]
    return [("depth", "build", "compile", "start", "step", "memory"), *found] if found else []


def _ratios(rows, framework):
    """The figures of keras_preact over those of another framework, which computes nothing twice."""
    measured = _measured(rows)
    others = {
        (row.depth, row.precision): row
        for row in measured
        if (row.framework, row.remat) == (framework, "none")
    }
    found = []
    for row in measured:
        other = others.get((row.depth, row.precision))
        if row.framework == "keras_preact" and other:
            names = ("start_seconds", "images_per_second", _memory(row, other))
            name = f"  {row.depth} {_bits(row)}: {_name(row)}"
            found.append((name, *(_ratio(row, other, name) for name in names)))
    return [("start", "images/s", "memory"), *found] if found else []


def _formula(rows):
    found = [
        (
            f"  {row.depth} {_bits(row)}: {_name(row)}",
            f"{row.step_memory_mebibytes:,.0f}",
            f"{row.formula_mebibytes:,.0f}",
            f"{row.formula_mebibytes / row.step_memory_mebibytes:.2f}",
        )
        for row in _measured(rows)
        if row.formula_mebibytes and row.step_memory_mebibytes
    ]
    return [("measured", "formula", "ratio"), *found] if found else []


def _memory(*rows):
    """The column to compare: of GPUs where all ran on one."""
    on_gpu = all(row.device_memory_mebibytes is not None for row in rows)
    return "device_memory_mebibytes" if on_gpu else "peak_memory_mebibytes"


def _ratio(row, other, name):
    value, base = getattr(row, name), getattr(other, name)
    return f"{value / base:.2f}" if value is not None and base else ""
