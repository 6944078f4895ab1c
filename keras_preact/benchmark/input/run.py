"""Measures the input pipelines in turn, and prints their table."""

import contextlib
import dataclasses
import pathlib
import tempfile
import textwrap
from collections.abc import Callable, Iterator

import tensorflow as tf

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.rows import median
from keras_preact.benchmark.runner import start_script
from keras_preact.support.machine import cores
from keras_preact.support.text import aligned

PIPELINES = ("keras_preact", "official")
BATCH_SIZE, IMAGE_SIZE = 64, 224

# What the files in ImageNet mostly are.
_PHOTO_SIDES, _QUALITY = (375, 500), 90
_PHOTOS = 64

NOTES = (
    "images/s: by all cores of the machine, the median over the rounds; low and high are the "
    "extremes. per core: over the number of cores.",
    "CPU: time of all threads for an image, the least of the rounds: other load moves it less.",
    "keras_preact: the batches that training reads, uint8, with the checks of each file, its "
    "orientation, and antialiasing. official: the usual pipeline of TensorFlow's official models: "
    "decode_and_crop_jpeg of a sampled distorted box, plain bilinear resize, mirroring.",
)


@dataclasses.dataclass(frozen=True)
class InputRow:
    """The figures of a pipeline; None for those that were not measured.

    Args:
        pipeline: one of `PIPELINES`.
        photographs: that were read, in words.
        image_pixels: height and width of the images that come out.
        batch_size: images in a batch.
        cores: of the machine.
        rounds: processes that succeeded.
        steps: timed batches of each.
        images_per_second: median; the next two fields are the extremes.
        images_per_second_and_core: median over the number of cores.
        cpu_milliseconds: of all threads for an image, the least.
        keras_preact_times: median of keras_preact over this one.
        error: of the first process that failed, after which no other was started.
    """

    pipeline: str
    photographs: str
    image_pixels: int
    batch_size: int
    cores: int
    rounds: int
    steps: int
    images_per_second: float | None
    lowest_images_per_second: float | None
    highest_images_per_second: float | None
    images_per_second_and_core: float | None
    cpu_milliseconds: float | None
    keras_preact_times: float | None
    error: str | None


@dataclasses.dataclass(frozen=True)
class InputOutcome:
    """The figures of a benchmark with mode input.

    Args:
        rows: a row for each pipeline.
    """

    rows: list[InputRow]


def run(
    config: BenchmarkConfig,
    say: Callable[[str], None],
    start: Callable[[str, dict], dict] = start_script,
) -> InputOutcome:
    """Measures every pipeline, each round in a process of its own, the pipelines in turn.

    Args:
        config: names the folder of photographs, the sizes, rounds and steps.
        say: receives a line about each process.
        start: takes the name of a script and its argument; returns its answer.
    """
    job = {
        "image_size": config.image_size or IMAGE_SIZE,
        "batch_size": config.batch_size or BATCH_SIZE,
        "steps": config.steps,
    }
    answers = {name: [] for name in PIPELINES}
    with _photographs(config.data_dir) as (folder, words):
        for number in range(1, config.rounds + 1):
            for name, before in answers.items():
                # A failed measurement would fail again.
                if any("error" in answer for answer in before):
                    continue
                answer = start(
                    "input/measure.py", {**job, "pipeline": name, "data_dir": str(folder)}
                )
                before.append(answer)
                result = answer.get("error") or f"{answer['images_per_second']:.1f} images/s"
                say(f"input, round {number} of {config.rounds}, {name}: {result}")
    ours = median(answers["keras_preact"], "images_per_second")
    return InputOutcome([_row(name, words, job, answers[name], ours) for name in PIPELINES])


def _row(name, photographs, job, answers, ours):
    good = [answer for answer in answers if "error" not in answer]
    speeds = [answer["images_per_second"] for answer in good]
    speed = median(good, "images_per_second")
    return InputRow(
        pipeline=name,
        photographs=photographs,
        image_pixels=job["image_size"],
        batch_size=job["batch_size"],
        cores=cores(),
        rounds=len(good),
        steps=job["steps"],
        images_per_second=speed,
        lowest_images_per_second=min(speeds, default=None),
        highest_images_per_second=max(speeds, default=None),
        images_per_second_and_core=speed and speed / cores(),
        cpu_milliseconds=min((answer["cpu_milliseconds"] for answer in good), default=None),
        keras_preact_times=ours / speed if ours and speed else None,
        error=next((answer["error"] for answer in answers if "error" in answer), None),
    )


@contextlib.contextmanager
def _photographs(data_dir: str | None) -> Iterator[tuple[pathlib.Path, str]]:
    """A context with a folder of photographs and words for them; some are made if none is given."""
    if data_dir:
        yield pathlib.Path(data_dir).expanduser(), f"the files of {data_dir}"
        return
    with tempfile.TemporaryDirectory(prefix="keras_preact_benchmark_") as temporary:
        folder = pathlib.Path(temporary)
        size = write_photographs(folder)
        height, width = _PHOTO_SIDES
        yield (
            folder,
            f"{_PHOTOS} crops of two photographs that come with scikit-learn, JPEG of "
            f"{width} x {height} pixels, quality {_QUALITY}, 4:2:0, {size / 1e3:.0f} kB on average",
        )


def write_photographs(folder: pathlib.Path) -> float:
    """Writes a folder of JPEG photographs and returns the mean size of a file in bytes."""
    from sklearn.datasets import load_sample_images

    (height, width), sizes = _PHOTO_SIDES, []
    originals = load_sample_images().images
    for number in range(_PHOTOS + 2):
        # Crops of 4:3 that differ in place and size.
        kind, image = number % 2, originals[number % 2]
        tall = 375 + number * (image.shape[0] - 375) // (_PHOTOS + 2)
        wide = tall * width // height
        left = (number * 37) % (image.shape[1] - wide)
        crop = tf.image.resize(image[:tall, left : left + wide], [height, width], antialias=True)
        pixels = tf.cast(tf.clip_by_value(tf.round(crop), 0, 255), tf.uint8)
        file = tf.io.encode_jpeg(pixels, quality=_QUALITY).numpy()
        split = "train" if number < _PHOTOS else "val"
        path = folder / split / f"photograph{kind}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)
        sizes.append(len(file))
    return sum(sizes) / len(sizes)


def lines(outcome: InputOutcome, config: BenchmarkConfig, width: int) -> Iterator[str]:
    """The table and its notes, in lines of at most `width` characters."""
    columns = [
        ("images/s", "images_per_second", "{:,.1f}"),
        ("low", "lowest_images_per_second", "{:,.1f}"),
        ("high", "highest_images_per_second", "{:,.1f}"),
        ("per core", "images_per_second_and_core", "{:,.1f}"),
        ("CPU", "cpu_milliseconds", "{:.2f} ms"),
        ("ours/this", "keras_preact_times", "{:.2f}"),
    ]
    cells = []
    for row in outcome.rows:
        values = [(getattr(row, name), pattern) for _, name, pattern in columns]
        shown = ("" if value is None else pattern.format(value) for value, pattern in values)
        cells.append((f"  {row.pipeline}", *shown))
    first = outcome.rows[0]
    read = (
        f"Read: {first.photographs}. Batches of {first.batch_size} images of "
        f"{first.image_pixels} x {first.image_pixels} pixels."
    )
    yield from textwrap.wrap(read, width)
    titles = ("", *(title for title, *_ in columns))
    yield from aligned(titles, cells, numbers_from=1, indent="").split("\n")
    for row in outcome.rows:
        if row.error:
            failed = f"    {row.pipeline} failed: {row.error}"
            yield textwrap.shorten(failed, width, placeholder=" ...")
    yield ""
    rounds = f"{config.rounds} processes of each pipeline in turn, {config.steps} timed batches."
    for note in (rounds, *NOTES):
        yield from textwrap.wrap(note, width, subsequent_indent="  ")
