"""Runs the jobs of mode scaling: each round in a process of its own, the frameworks in turn."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, label, make_scaling_jobs
from keras_preact.benchmark.ours import make_config
from keras_preact.benchmark.rows import median
from keras_preact.benchmark.runner import alternate, check_memory, start_script
from keras_preact.models.training_memory import RUNTIME_BYTES
from keras_preact.training.distribution.compute_plan import Machine, make_compute_plan

# Fields of a row that are medians over the rounds.
_FIGURES = (
    *("build_seconds", "first_step_seconds", "compile_seconds", "start_seconds"),
    *("step_milliseconds", "layer_microseconds", "images_per_second", "memory_before_mebibytes"),
    *("peak_memory_mebibytes", "device_memory_mebibytes", "step_memory_mebibytes"),
    "layer_memory_mebibytes",
)


@dataclasses.dataclass(frozen=True)
class ScalingRow:
    """One framework's figures at one depth, medians over the rounds; None if not measured.

    Args:
        framework: "keras_preact", "keras" or "torch".
        remat: what it computes twice.
        xla, unit_loops: as given to keras_preact; None elsewhere.
        precision: the name of a Keras dtype policy.
        device: name of the GPU, or "CPU".
        depth: weighted layers.
        block: of the units.
        units: residual units.
        batch_size: images in a step.
        image_pixels: height and width.
        rounds: processes that succeeded.
        steps: timed steps of each, the fewest.
        build_seconds: until network and optimizer exist.
        first_step_seconds: of the first step, with tracing, optimizing and compiling.
        compile_seconds: of the first step beyond a later one.
        start_seconds: of build and first step.
        step_milliseconds: of a later step.
        layer_microseconds: of a later step, for each layer.
        images_per_second: of later steps.
        memory_before_mebibytes: resident memory of the process before its first step.
        peak_memory_mebibytes: largest resident memory of the process.
        device_memory_mebibytes: what the framework allocated on the GPU.
        step_memory_mebibytes: on a GPU the latter, else the peak beyond the memory before.
        layer_memory_mebibytes: step_memory_mebibytes for each layer.
        formula_mebibytes: step_memory_mebibytes of keras_preact by `Description.training_memory`;
            on a GPU with the weights, on a CPU with `RUNTIME_BYTES`.
        error: of the first process that failed, after which no other was started.
    """

    framework: str
    remat: str
    xla: str | None
    unit_loops: str | None
    precision: str
    device: str | None
    depth: int
    block: str
    units: int
    batch_size: int
    image_pixels: int
    rounds: int
    steps: int | None
    build_seconds: float | None
    first_step_seconds: float | None
    compile_seconds: float | None
    start_seconds: float | None
    step_milliseconds: float | None
    layer_microseconds: float | None
    images_per_second: float | None
    memory_before_mebibytes: float | None
    peak_memory_mebibytes: float | None
    device_memory_mebibytes: float | None
    step_memory_mebibytes: float | None
    layer_memory_mebibytes: float | None
    formula_mebibytes: float | None
    error: str | None

    @property
    def label(self) -> str:
        return label(self.framework, self.remat)


@dataclasses.dataclass(frozen=True)
class ScalingOutcome:
    """The figures of a benchmark with mode scaling.

    Args:
        rows: for each precision and depth, one for each framework and way to recompute.
    """

    rows: list[ScalingRow]


def run(
    config: BenchmarkConfig,
    say: Callable[[str], None],
    start: Callable[[str, dict], dict] | None = None,
) -> ScalingOutcome:
    """Measures every precision and depth.

    What fails at a depth is not tried at greater ones of the same precision.

    Args:
        config: names them.
        say: receives a line about each process.
        start: runs a script; by default `start_script`, for config.most_minutes at most.

    Raises:
        ValueError: if memory cannot hold the images of a batch.
    """
    groups = make_scaling_jobs(config)
    check_memory(itertools.chain(*groups))
    start = start or functools.partial(start_script, most_minutes=config.most_minutes)
    rows, failed = [], {}
    for jobs in groups:
        first = jobs[0]
        tried = {job.label: job for job in jobs if (job.label, job.precision) not in failed}
        scripts = {label: ("measure.py", dataclasses.asdict(job)) for label, job in tried.items()}
        title = f"{first.net.name} {first.precision}"
        answers = alternate(scripts, title, config.rounds, say, start, _in_words)
        for job in jobs:
            key = job.label, job.precision
            if key in failed:
                error = f"not tried, as it failed at {failed[key]} layers"
                rows.append(make_row(job, [{"error": error}]))
                continue
            rows.append(make_row(job, answers[job.label]))
            if rows[-1].error:
                failed[key] = job.net.depth
    return ScalingOutcome(rows)


def make_row(job: Job, answers: Sequence[dict]) -> ScalingRow:
    """Makes the row of a job.

    Args:
        job: of all answers.
        answers: each the dictionary of `measure.measure`, or {"error": text}.
    """
    good = [_derived(job, answer) for answer in answers if "error" not in answer]
    errors = [answer["error"] for answer in answers if "error" in answer]
    device = good[0]["device"] if good else None
    is_ours = job.framework == "keras_preact"
    return ScalingRow(
        framework=job.framework,
        remat=job.remat,
        xla=job.xla if is_ours else None,
        unit_loops=job.unit_loops if is_ours else None,
        precision=job.precision,
        device=device,
        depth=job.net.depth,
        block=job.net.block,
        units=len(job.net.units),
        batch_size=job.batch_size,
        image_pixels=job.image_size,
        rounds=len(good),
        steps=min((answer["steps"] for answer in good), default=job.steps),
        **{name: median(good, name) for name in _FIGURES},
        formula_mebibytes=_formula_mebibytes(job, device) if is_ours and good else None,
        error=errors[0] if errors else None,
    )


def _derived(job, answer):
    """An answer with the figures that follow from it."""
    step_seconds = job.batch_size / answer["images_per_second"]
    first_step_seconds = answer["first_step_seconds"] - answer["build_seconds"]
    step_memory = answer["device_memory_mebibytes"]
    if step_memory is None:
        step_memory = answer["peak_memory_mebibytes"] - answer["memory_before_mebibytes"]
    return {
        **answer,
        "start_seconds": answer["first_step_seconds"],
        "first_step_seconds": first_step_seconds,
        "compile_seconds": max(0.0, first_step_seconds - step_seconds),
        "step_milliseconds": 1e3 * step_seconds,
        "layer_microseconds": 1e6 * step_seconds / job.net.depth,
        "step_memory_mebibytes": step_memory,
        "layer_memory_mebibytes": step_memory / job.net.depth,
    }


def _formula_mebibytes(job, device):
    gpus = () if device == "CPU" else ((8, 0),)
    options = {"loops": make_compute_plan(make_config(job), Machine(gpus)).loops}
    memory = job.describe().training_memory(job.batch_size, job.precision, job.remat, **options)
    size = memory.in_step + RUNTIME_BYTES if device == "CPU" else memory.total
    return size / 2**20


def _in_words(answer):
    return (
        f"first step after {answer['first_step_seconds']:.1f} s, "
        f"{answer['images_per_second']:.1f} images/s, {answer['peak_memory_mebibytes']:,.0f} MiB"
    )
