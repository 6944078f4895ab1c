"""Runs every job, each round in a process of its own, the frameworks in turn."""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_jobs
from keras_preact.benchmark.rows import Row, make_rows
from keras_preact.support import memory

FOLDER = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The figures of a benchmark.

    Args:
        rows: a row for each framework, model, precision and mode.
        peaks: by precision, the best answer of peak.py: peak_teraflops, size and device, or
            error.
    """

    rows: list[Row]
    peaks: dict[str, dict]


def start_script(script: str | os.PathLike, argument: dict) -> dict:
    """Runs a script in a subprocess and waits for it; the subprocess ends with this process.

    Args:
        script: in this folder.
        argument: goes to the script's standard input, as JSON.

    Returns:
        The JSON that it printed as its last line; {"error": text} where it failed.
    """
    # The scripts lie in a folder whose names could hide other modules: hence -P.
    command = [sys.executable, "-P", str(FOLDER / script)]
    paths = [str(FOLDER.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    done = subprocess.run(
        command,
        input=json.dumps(argument),
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode == 0:
        return json.loads(done.stdout.rstrip().rpartition("\n")[2])
    if done.returncode == -signal.SIGKILL:
        return {"error": "killed by SIGKILL, as systems do when memory runs out"}
    if done.returncode < 0:
        return {"error": f"killed by {signal.Signals(-done.returncode).name}"}
    *_, last_line = ["no message", *done.stderr.strip().splitlines()]
    return {"error": f"exit code {done.returncode}: {last_line}"}


def run(
    config: BenchmarkConfig,
    say: Callable[[str], None],
    start: Callable[[str, dict], dict] = start_script,
    on_gpu: bool | None = None,
) -> Outcome:
    """Measures every job.

    Args:
        config: names the jobs.
        say: receives a line about each process.
        start: takes the name of a script and its argument; returns its answer.
        on_gpu: whether the processes run on a GPU; default: whether TensorFlow finds one.

    Raises:
        ValueError: if memory cannot hold the images of a batch.
    """
    if on_gpu is None:
        # This process may have hidden GPUs from itself, but still lists them.
        on_gpu = bool(tf.config.list_physical_devices("GPU"))
    groups = make_jobs(config, on_gpu)
    check_memory(itertools.chain(*groups))
    answers = [_alternate(jobs, config.rounds, say, start) for jobs in groups]
    peaks = {}
    for precision in config.precisions:
        of_precision = [
            answer
            for jobs, answer in zip(groups, answers, strict=True)
            if jobs[0].precision == precision
        ]
        tried = [peak for answer in of_precision for peak in answer["arithmetic peak"]]
        peaks[precision] = max(tried, key=lambda peak: peak.get("peak_teraflops", 0))
    rows = []
    for jobs, answer in zip(groups, answers, strict=True):
        rows += make_rows(jobs, answer, peaks[jobs[0].precision].get("peak_teraflops"))
    return Outcome(rows, peaks)


def check_memory(jobs: Iterable[Job]) -> None:
    """Raises ValueError if memory cannot hold the images of a batch."""
    for job in jobs:
        batch_bytes = 4 * job.batch_size * math.prod(job.image_shape)
        what = f"A batch of {job.batch_size:,} images in float32"
        memory.check(batch_bytes, what, ("batch_size", "image_size"))


def _alternate(jobs: Sequence[Job], rounds: int, say, start) -> dict[str, list[dict]]:
    """The answers of each framework's processes, and of those that measure the peak.

    A B C A B C, so that all meet the same changes of clock, temperature and neighbours.
    """
    first = jobs[0]
    scripts = {"arithmetic peak": ("peak.py", {"precision": first.precision})}
    scripts |= {job.framework: ("measure.py", dataclasses.asdict(job)) for job in jobs}
    answers = {name: [] for name in scripts}
    for number in range(1, rounds + 1):
        for name, script in scripts.items():
            # A failed measurement would fail again.
            if any("error" in answer for answer in answers[name]):
                continue
            answer = start(*script)
            answers[name].append(answer)
            say(
                f"{first.net.name} {first.precision} {first.mode}, round {number} of {rounds}, "
                f"{name}: {_in_words(answer)}"
            )
    return answers


def _in_words(answer):
    if "error" in answer:
        return answer["error"]
    if "peak_teraflops" in answer:
        return f"{answer['peak_teraflops']:.3g} TFLOP/s"
    return f"{answer['images_per_second']:.1f} images/s"
