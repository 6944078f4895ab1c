"""Runs the trials of mode overhead: each round in a process of its own."""

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_jobs
from keras_preact.benchmark.runner import check_memory, start_script


@dataclasses.dataclass(frozen=True)
class OverheadRow:
    """The figures of one number of steps a launch; None for those that were not measured.

    Args:
        model: such as resnet164.
        precision: the name of a Keras dtype policy.
        framework: "keras_preact".
        device: name of the GPU, or "CPU".
        xla: whether XLA compiles the steps.
        batch_size: images in a step.
        image_pixels: height and width.
        steps_per_launch: median over the rounds, where a run chooses it.
        chosen_by_run: whether a run chooses that number by itself.
        rounds: processes that succeeded.
        pairs: of measurements, in all rounds: launches, and the compiled function alone.
        overhead_milliseconds: a step in launches less a step in the compiled function alone;
            median of the pairs. The next two fields are the quartiles.
        empty_milliseconds: a step in launches that compute nothing, median.
        launch_milliseconds: a step in launches, median.
        compiled_milliseconds: a step in the compiled function alone, median.
        outside_operations: that TensorFlow runs outside of the compiled function, a step.
        inside_operations: that it runs one by one inside.
        error: of the first process that failed, after which no other was started.
    """

    model: str
    precision: str
    framework: str
    device: str | None
    xla: bool | None
    batch_size: int
    image_pixels: int
    steps_per_launch: int | None
    chosen_by_run: bool | None
    rounds: int
    pairs: int
    overhead_milliseconds: float | None
    lower_quartile_milliseconds: float | None
    upper_quartile_milliseconds: float | None
    empty_milliseconds: float | None
    launch_milliseconds: float | None
    compiled_milliseconds: float | None
    outside_operations: float | None
    inside_operations: float | None
    error: str | None


@dataclasses.dataclass(frozen=True)
class OverheadOutcome:
    """The figures of a benchmark with mode overhead.

    Args:
        rows: a row for each network, precision and number of steps a launch.
    """

    rows: list[OverheadRow]


def run(
    config: BenchmarkConfig,
    say: Callable[[str], None],
    start: Callable[[str, dict], dict] = start_script,
) -> OverheadOutcome:
    """Measures every network and precision.

    Args:
        config: names them.
        say: receives a line about each process.
        start: runs a script, as `start_script` does.

    Raises:
        ValueError: if memory cannot hold the images of a batch.
    """
    jobs = list(itertools.chain(*make_jobs(config)))
    check_memory(jobs)
    rows = []
    for job in jobs:
        answers = []
        for number in range(1, config.rounds + 1):
            answers.append(start("overhead/trial.py", dataclasses.asdict(job)))
            name = f"{job.net.name} {job.precision} {job.mode}"
            say(f"{name}, round {number} of {config.rounds}: {_in_words(answers[-1])}")
            # A failed measurement would fail again.
            if "error" in answers[-1]:
                break
        rows += make_rows(job, answers)
    return OverheadOutcome(rows)


def make_rows(job: Job, answers: Sequence[dict]) -> Iterator[OverheadRow]:
    """Yields a row for each number of steps a launch; one of the error where all failed.

    Args:
        job: of all answers.
        answers: each the dictionary of `trial.measure`, or {"error": text}.
    """
    good = [answer for answer in answers if "error" not in answer]
    error = next((answer["error"] for answer in answers if "error" in answer), None)
    launches = zip(*(answer["launches"] for answer in good), strict=True)
    for of_rounds in launches if good else [()]:
        pairs = [pair for launch in of_rounds for pair in launch["pairs"]]
        steps = _median([launch["steps"] for launch in of_rounds])
        yield OverheadRow(
            model=job.net.name,
            precision=job.precision,
            framework=job.framework,
            device=good[0]["device"] if good else None,
            xla=good[0]["xla"] if good else None,
            batch_size=job.batch_size,
            image_pixels=job.image_size,
            steps_per_launch=None if steps is None else round(steps),
            chosen_by_run=of_rounds[0]["chosen"] if good else None,
            rounds=len(good),
            pairs=len(pairs),
            **_overhead(pairs),
            empty_milliseconds=_median([value for each in of_rounds for value in each["empty"]]),
            **_operations(of_rounds),
            error=error,
        )


def _overhead(pairs):
    differences = [launch - compiled for launch, compiled in pairs]
    lower, middle, upper = _quartiles(differences)
    return {
        "overhead_milliseconds": middle,
        "lower_quartile_milliseconds": lower,
        "upper_quartile_milliseconds": upper,
        "launch_milliseconds": _median([launch for launch, _ in pairs]),
        "compiled_milliseconds": _median([compiled for _, compiled in pairs]),
    }


def _operations(launches):
    """Returns the operations of a step, medians over the rounds."""
    counted = [launch for launch in launches if launch["operations"]]
    return {
        f"{place}_operations": _median(
            [launch["operations"][place] / launch["steps"] for launch in counted]
        )
        for place in ("outside", "inside")
    }


def _quartiles(values):
    if len(values) < 2:
        return (*values, *values, *values) or (None, None, None)
    return statistics.quantiles(values, n=4, method="inclusive")


def _median(values):
    return statistics.median(values) if values else None


def _in_words(answer):
    if "error" in answer:
        return answer["error"]
    figures = (
        f"{_median(launch['empty']):.2f} ms at {launch['steps']}" for launch in answer["launches"]
    )
    return f"empty {', '.join(figures)} steps a launch"
