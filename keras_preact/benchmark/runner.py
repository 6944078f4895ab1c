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
from collections.abc import Callable, Iterable, Mapping

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


def start_script(
    script: str | os.PathLike, argument: dict, most_minutes: float | None = None
) -> dict:
    """Runs a script in a subprocess and waits for it; the subprocess ends with this process.

    Args:
        script: in this folder.
        argument: goes to the script's standard input, as JSON.
        most_minutes: after which the subprocess is killed; default: never.

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
    try:
        done = subprocess.run(
            command,
            input=json.dumps(argument),
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=most_minutes and 60 * most_minutes,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {most_minutes:g} minutes, see --most_minutes"}
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
    answers = [_with_peak(jobs, config.rounds, say, start) for jobs in groups]
    peaks = {}
    for precision in config.chosen_precisions:
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


def _with_peak(jobs, rounds, say, start):
    """The answers of each framework's processes, and of those that measure the peak."""
    first = jobs[0]
    scripts = {"arithmetic peak": ("peak.py", {"precision": first.precision})}
    scripts |= {job.framework: ("measure.py", dataclasses.asdict(job)) for job in jobs}
    title = f"{first.net.name} {first.precision} {first.mode}"
    return alternate(scripts, title, rounds, say, start, _in_words)


def alternate(
    scripts: Mapping[str, tuple[str, dict]],
    title: str,
    rounds: int,
    say: Callable[[str], None],
    start: Callable[[str, dict], dict],
    in_words: Callable[[dict], str],
) -> dict[str, list[dict]]:
    """Starts scripts in turn; returns the answers of each.

    A B C A B C, so that all meet the same changes of clock, temperature and neighbours.

    Args:
        scripts: by name, the script and its argument.
        title: of the lines that are said.
        rounds: how often each is started, unless it fails.
        say: receives a line about each process.
        start: runs a script, as `start_script` does.
        in_words: tells an answer without an error.
    """
    answers = {name: [] for name in scripts}
    for number in range(1, rounds + 1):
        for name, script in scripts.items():
            # A failed measurement would fail again.
            if any("error" in answer for answer in answers[name]):
                continue
            answer = start(*script)
            answers[name].append(answer)
            told = answer["error"] if "error" in answer else in_words(answer)
            say(f"{title}, round {number} of {rounds}, {name}: {told}")
    return answers


def _in_words(answer):
    if "peak_teraflops" in answer:
        return f"{answer['peak_teraflops']:.3g} TFLOP/s"
    return f"{answer['images_per_second']:.1f} images/s"
