"""The figures of a benchmark: a row for each framework at one model, precision and mode."""

import csv
import dataclasses
import io
import statistics
from collections.abc import Mapping, Sequence

from keras_preact.benchmark.job import Job


@dataclasses.dataclass(frozen=True)
class Row:
    """One framework's figures, medians over the rounds; None for those that were not measured.

    Args:
        model: such as resnet164.
        precision: the name of a Keras dtype policy.
        mode: one of `config.MODES`.
        framework: one of `config.FRAMEWORKS`.
        device: name of the GPU, or "CPU".
        batch_size: images in a step.
        image_pixels: height and width.
        rounds: processes that succeeded.
        steps: timed steps of each, the fewest; None where none succeeded and none were asked for.
        images_per_second: median; the next two fields are the extremes.
        keras_preact_times: median of keras_preact over this one.
        first_step_seconds: from the start of building to the first result.
        peak_memory_mebibytes: resident memory of the process.
        device_memory_mebibytes: what the framework allocated on the GPU.
        gigaflops_per_image: of convolutions and logits, a multiply-add counted as two.
        share_of_peak: arithmetic done over the machine's peak, 0 to 1.
        error: of the first process that failed, after which no other was started.
    """

    model: str
    precision: str
    mode: str
    framework: str
    device: str | None
    batch_size: int
    image_pixels: int
    rounds: int
    steps: int | None
    images_per_second: float | None
    lowest_images_per_second: float | None
    highest_images_per_second: float | None
    keras_preact_times: float | None
    first_step_seconds: float | None
    peak_memory_mebibytes: float | None
    device_memory_mebibytes: float | None
    gigaflops_per_image: float
    share_of_peak: float | None
    error: str | None


def columns(row_class: type) -> list[str]:
    """The columns of a CSV of such rows."""
    return [field.name for field in dataclasses.fields(row_class)]


COLUMNS = columns(Row)


def make_rows(
    jobs: Sequence[Job], results: Mapping[str, Sequence[dict]], peak_teraflops: float | None
) -> list[Row]:
    """The rows of jobs that differ in the framework alone.

    Args:
        jobs: one for each framework.
        results: by framework, the answer of each of its processes: `measure.measure`'s
            dictionary, or {"error": text}.
        peak_teraflops: 10^12 operations a second, None where it could not be measured.
    """
    ours = median(results.get("keras_preact", ()), "images_per_second")
    return [_row(job, results[job.framework], ours, peak_teraflops) for job in jobs]


def csv_bytes(rows: Sequence, row_class: type = Row) -> bytes:
    """A CSV with a line for each row, its cells empty where a figure is missing.

    Args:
        rows: dataclasses.
        row_class: theirs; its fields are the columns.
    """
    lines = io.StringIO()
    writer = csv.DictWriter(lines, columns(row_class), lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(dataclasses.asdict, rows))
    return lines.getvalue().encode()


def is_csv(first: bytes, row_class: type = Row) -> bool:
    """Whether a file that begins with these bytes was made by `csv_bytes`."""
    line, newline, _ = first.partition(b"\n")
    header = line.rstrip(b"\r").decode(errors="replace")
    return bool(newline) and header == ",".join(columns(row_class))


def _row(job, answers, ours, peak_teraflops):
    speeds = _values(answers, "images_per_second")
    speed = median(answers, "images_per_second")
    errors = [answer["error"] for answer in answers if "error" in answer]
    share = None
    if speed and peak_teraflops:
        share = speed * job.operations_per_image / (peak_teraflops * 1e12)
    return Row(
        model=job.net.name,
        precision=job.precision,
        mode=job.mode,
        framework=job.framework,
        device=next((answer["device"] for answer in answers if "device" in answer), None),
        batch_size=job.batch_size,
        image_pixels=job.image_size,
        rounds=len(speeds),
        steps=min(_values(answers, "steps"), default=job.steps),
        images_per_second=speed,
        lowest_images_per_second=min(speeds, default=None),
        highest_images_per_second=max(speeds, default=None),
        keras_preact_times=ours / speed if ours and speed else None,
        first_step_seconds=median(answers, "first_step_seconds"),
        peak_memory_mebibytes=median(answers, "peak_memory_mebibytes"),
        device_memory_mebibytes=median(answers, "device_memory_mebibytes"),
        gigaflops_per_image=job.operations_per_image / 1e9,
        share_of_peak=share,
        error=errors[0] if errors else None,
    )


def median(answers: Sequence[dict], name: str) -> float | None:
    """The median of a figure over answers; None where none has it."""
    values = _values(answers, name)
    return statistics.median(values) if values else None


def _values(answers, name):
    return [answer[name] for answer in answers if answer.get(name) is not None]
