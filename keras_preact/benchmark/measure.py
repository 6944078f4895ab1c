"""Measures one job in a process of its own: python -P measure.py < JOB prints a line of JSON.

Imports the standard library alone and is started by its path: importing the package
would bring TensorFlow into PyTorch's process and count as PyTorch's memory.
"""

import importlib
import importlib.util
import json
import math
import pathlib
import resource
import sys
import time
import types
from collections.abc import Callable

# Allocators and the choice of kernels settle in the steps after the first.
WARM_UP_STEPS = 2
# Fewer steps of a fast device would be over before the clock could tell.
LEAST_STEPS = 10
MOST_STEPS = 100_000
ENOUGH_SECONDS = 5.0

MODULES = {
    "keras_preact": "keras_preact.benchmark.ours",
    "keras": "keras_preact.benchmark.stock_keras",
}


def measure(framework: types.ModuleType, job: types.SimpleNamespace) -> dict:
    """Builds the job's network, takes its first step, some more, and then its timed steps.

    Args:
        framework: has prepare(job) and device(), as `pytorch` has.
        job: a `job.Job`.

    Returns:
        images_per_second; steps, the number timed; build_seconds, of network and optimizer;
        first_step_seconds, from the start of building to the first result; device;
        memory_before_mebibytes, of the whole process before its first step;
        peak_memory_mebibytes, of the whole process; device_memory_mebibytes, None without a GPU.
    """
    start = time.perf_counter()
    take = framework.prepare(job)
    build_seconds = time.perf_counter() - start
    memory_before_mebibytes = memory_mebibytes()
    take(1)
    first_step_seconds = time.perf_counter() - start
    take(WARM_UP_STEPS)
    steps, seconds = timed(take, job.steps, job.least_steps)
    device, device_memory_mebibytes = framework.device()
    return {
        "images_per_second": job.batch_size * steps / seconds,
        "steps": steps,
        "build_seconds": build_seconds,
        "first_step_seconds": first_step_seconds,
        "memory_before_mebibytes": memory_before_mebibytes,
        "peak_memory_mebibytes": peak_memory_mebibytes(),
        "device": device,
        "device_memory_mebibytes": device_memory_mebibytes,
    }


def timed(
    take: Callable[[int], float], steps: int | None, least_steps: int = LEAST_STEPS
) -> tuple[int, float]:
    """Takes steps; returns their number and the seconds they took.

    Args:
        take: takes that many steps and returns the seconds.
        steps: None for at least least_steps and about `ENOUGH_SECONDS` or more. Tries with
            fewer steps then serve as a longer warm-up.
        least_steps: see steps.
    """
    if steps is not None:
        return steps, take(steps)
    steps = least_steps
    while (seconds := take(steps)) < ENOUGH_SECONDS and steps < MOST_STEPS:
        enough = math.ceil(1.2 * steps * ENOUGH_SECONDS / max(seconds, 1e-9))
        # A first try may have been slow to begin, so no more than a hundredfold at once.
        steps = min(max(2 * steps, enough), 100 * steps, MOST_STEPS)
    return steps, seconds


def peak_memory_mebibytes() -> float:
    """The largest resident memory that this process has had."""
    return _resident_mebibytes("VmHWM")


def memory_mebibytes() -> float:
    """The resident memory of this process now; the largest where the system tells no other."""
    return _resident_mebibytes("VmRSS")


def _resident_mebibytes(field):
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss, which on Linux begins at what the parent process held.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines[field].split()[0]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def answer(function: Callable[[types.SimpleNamespace], dict]) -> None:
    """Calls a function with the JSON of the standard input; prints its result or error as JSON."""
    argument = json.load(sys.stdin, object_hook=lambda fields: types.SimpleNamespace(**fields))
    try:
        result = function(argument)
    except Exception as error:
        # Every kind: each framework has its own for exhausted memory.
        *_, last_line = ["", *str(error).strip().splitlines()]
        result = {"error": f"{type(error).__name__}: {last_line.strip()}"}
    print(f"\n{json.dumps(result)}")


def load(framework: str) -> types.ModuleType:
    """Imports the module of a framework, and no other's; pytorch.py for torch and torch_compile."""
    if framework in MODULES:
        return importlib.import_module(MODULES[framework])
    path = pathlib.Path(__file__).with_name("pytorch.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    answer(lambda job: measure(load(job.framework), job))
