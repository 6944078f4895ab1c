"""The table of mode overhead."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from keras_preact.benchmark.overhead.run import OverheadRow
from keras_preact.support.text import aligned, printable

NOTES = (
    "overhead: milliseconds a step in launches less those in the compiled function alone; the "
    "median of pairs measured in turn, then their quartiles. A negative one is noise.",
    "empty: milliseconds a step in launches whose compiled function does nothing. That is the same "
    "overhead without arithmetic, so it can be told from the noise. With XLA on it contains the "
    "call of an empty program, as the compiled function contains its own.",
    "launches: steps as a run takes them, from drawing the images to the reports on the host. "
    "chosen: the number of steps a launch that a run would choose at this batch size.",
    "compiled: the step's own function from one state to the next, its forward pass, backward "
    "pass and update; one call takes all steps of one prepared batch, and nothing is read or "
    "written in between. With XLA off the function is a part of TensorFlow's graph and a loop of "
    "TensorFlow calls it; with XLA on it is XLA's program, which on GPUs holds the loop as well.",
    "outside: operations a step that TensorFlow runs outside of that function, counted from a "
    "profile; inside: those that it runs one by one within (XLA's program counts as none). "
    "Control flow and constants do not count. Empty where a profile does not show them.",
    "Batch and images are small, so that arithmetic does not hide the difference, which does not "
    "depend on their size. Other load on the machine moves every figure.",
)
_COLUMNS = (
    ("steps a launch", lambda row: _steps(row)),
    ("overhead", lambda row: _number(row.overhead_milliseconds, "{:.2f} ms")),
    ("25 %", lambda row: _number(row.lower_quartile_milliseconds, "{:.2f}")),
    ("75 %", lambda row: _number(row.upper_quartile_milliseconds, "{:.2f}")),
    ("empty", lambda row: _number(row.empty_milliseconds, "{:.2f} ms")),
    ("launches", lambda row: _number(row.launch_milliseconds, "{:.2f} ms")),
    ("compiled", lambda row: _number(row.compiled_milliseconds, "{:.2f} ms")),
    ("outside", lambda row: _number(row.outside_operations, "{:,.1f}")),
    ("inside", lambda row: _number(row.inside_operations, "{:,.1f}")),
)


def lines(rows: Sequence[OverheadRow], width: int) -> Iterator[str]:
    """The table and its notes, in lines of at most `width` characters."""
    cells = [("  keras_preact", *(cell(row) for _, cell in _COLUMNS)) for row in rows]
    titles = ("", *(title for title, _ in _COLUMNS))
    header, *body = aligned(titles, cells, numbers_from=1, indent="").split("\n")
    yield header
    pairs = zip(rows, body, strict=True)
    for title, group in itertools.groupby(pairs, key=lambda pair: _title(pair[0])):
        yield from textwrap.wrap(title, width)
        group = list(group)
        yield from (line for _, line in group)
        if error := group[0][0].error:
            text = f"failed: {printable(error)}"
            yield f"    {textwrap.shorten(text, width - 4, placeholder=' ...')}"
    yield ""
    for note in NOTES:
        yield from textwrap.wrap(note, width, subsequent_indent="  ")


def _title(row):
    xla = "" if row.xla is None else f", XLA {'on' if row.xla else 'off'}"
    images = "image" if row.batch_size == 1 else "images"
    processes = "process" if row.rounds == 1 else "processes"
    measured = f"; {row.pairs} pairs in {row.rounds} {processes}" if row.pairs else ""
    return (
        f"{row.model} {row.precision}{xla}, batches of {row.batch_size} {images} of "
        f"{row.image_pixels} x {row.image_pixels} pixels{measured}"
    )


def _steps(row):
    if row.steps_per_launch is None:
        return ""
    return f"{'chosen: ' if row.chosen_by_run else ''}{row.steps_per_launch}"


def _number(value, pattern):
    return "" if value is None else pattern.format(value)
