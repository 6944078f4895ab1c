"""The table of a load on a model server."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.server.rows import REQUESTS, LoadRow
from keras_preact.support.text import aligned, printable

NOTES = (
    "requests/s: good answers a second. Each request has one image, and each client asks again as "
    "soon as it has its answer.",
    "p50, p95, p99: half, 95 % and 99 % of the good answers took the client at most this long.",
    "ours/this: requests/s of keras_preact over this row's, with the same batching and request.",
    "errors: share of answers that are no good ones. memory: the largest resident memory of the "
    "server so far.",
    "CPU: the clients' share of the time of all cores. They run beside the server and take it "
    "from there.",
    "first answer: from the start of the server, with the warm-up requests that exports come with "
    "(those of keras_preact).",
    "REST JSON, gRPC tensor: pixels, uint8 for keras_preact, normalized float32 for model.export "
    "of the same net in stock Keras. REST JPEG, gRPC JPEG: an image file, which only the exports "
    "of keras_preact take.",
    "batching written: the parameters that exports come with. none: without --enable_batching.",
)
_COLUMNS = (
    ("clients", "clients", "{}"),
    ("requests/s", "requests_per_second", "{:,.1f}"),
    ("ours/this", "keras_preact_times", "{:.2f}"),
    ("p50 ms", "p50_milliseconds", "{:,.1f}"),
    ("p95 ms", "p95_milliseconds", "{:,.1f}"),
    ("p99 ms", "p99_milliseconds", "{:,.1f}"),
    ("errors", "error_share", "{:.1%}"),
    ("memory", "peak_memory_mebibytes", "{:,.0f} MiB"),
    ("CPU", "clients_cpu_share", "{:.0%}"),
)


def lines(rows: Sequence[LoadRow], config: BenchmarkConfig, width: int) -> Iterator[str]:
    """The table and its notes, in lines of at most `width` characters."""
    yield from _table(rows, width)
    yield ""
    for note in (_rounds(config), *_crowd(rows), *NOTES):
        yield from textwrap.wrap(note, width, subsequent_indent="  ")


def _rounds(config):
    how = (
        "Figures are single measurements"
        if config.rounds == 1
        else f"Figures are medians of {config.rounds} starts of the server"
    )
    return f"{how}, {config.seconds} s for each load after a warm-up. Other load moves them all."


def _crowd(rows):
    if broken := max((row.broken_clients for row in rows), default=0):
        yield (
            f"Beside the clients of each load on keras_preact: {broken} that send image files "
            "which cannot be decoded; their answers do not count."
        )


def _table(rows, width):
    cells = [
        (f"  {REQUESTS[row.request]}", *(_cell(row, name, form) for _, name, form in _COLUMNS))
        for row in rows
    ]
    titles = ("", *(title for title, *_ in _COLUMNS))
    header, *body = aligned(titles, cells, numbers_from=1, indent="").split("\n")
    yield header
    pairs = zip(rows, body, strict=True)
    for title, group in itertools.groupby(pairs, key=lambda pair: _title(pair[0])):
        yield from textwrap.wrap(title, width)
        shown = None
        for row, line in group:
            yield line
            problem = row.error or row.failed_answer
            # A server that does not start fails all loads in the same way.
            if problem and problem != shown:
                shown = problem
                text = f"{'failed' if row.error else 'an answer'}: {printable(problem)}"
                yield f"    {textwrap.shorten(text, width - 4, placeholder=' ...')}"


def _cell(row, name, form):
    value = getattr(row, name)
    return "" if value is None else form.format(value)


def _title(row):
    start = row.first_answer_seconds
    first = "" if start is None else f"; first answer after {start:.1f} s"
    return f"{row.model} {row.precision}, {row.framework}, batching {row.batching}{first}"
