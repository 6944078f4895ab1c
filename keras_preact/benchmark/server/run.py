"""Loads model servers: every request and number of clients, each round on fresh servers."""

import dataclasses
import itertools
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import make_jobs
from keras_preact.benchmark.runner import start_script
from keras_preact.benchmark.server import model_server
from keras_preact.benchmark.server.model_server import ModelServer, ServerError
from keras_preact.benchmark.server.rows import REQUESTS, Load, LoadRow, make_rows
from keras_preact.exporting.serving import warmup

# For the estimate: an export, the start of a server, and a load beside what it counts.
_EXPORT_SECONDS, _START_SECONDS, _WARM_UP_SECONDS = 15, 8, 3

# Takes the name of a script and its argument; returns its answer, {"error": text} if it failed.
Start = Callable[[str, dict], dict]


@dataclasses.dataclass(frozen=True)
class LoadOutcome:
    """The figures of a benchmark with mode server.

    Args:
        rows: a row for each load.
        version: as the server prints it; None if it does not.
    """

    rows: list[LoadRow]
    version: str | None


@dataclasses.dataclass(frozen=True)
class Export:
    """An export in a folder of its own.

    Args:
        folder: holds saved_model and serving.
        requests: as `exports.write` returns them, or {"error": text}.
    """

    folder: pathlib.Path
    requests: dict


def run(
    config: BenchmarkConfig, say: Callable[[str], None], start: Start = start_script
) -> LoadOutcome:
    """Measures every load.

    Each round starts a server for each framework and batching in turn, so that all meet the
    same neighbours on the machine. Servers and files are gone at the end.

    Args:
        config: names the server and the loads.
        say: receives a line about each load, and the output of a server that fails.
        start: runs a script.

    Raises:
        ValueError: if a file of batching parameters is no text.
        OSError: if it cannot be read.
    """
    texts = {batching: model_server.batching_text(batching) for batching in config.batching}
    groups = make_jobs(config)
    every = list(itertools.chain(*groups))
    loads = {job: {each: _loads(job, each, config) for each in texts} for job in every}
    results = {each: [] for job in every for of_server in loads[job].values() for each in of_server}
    say(f"This takes about {_minutes(config, loads)} min: {len(results)} loads a round.")
    with tempfile.TemporaryDirectory(prefix="keras_preact_benchmark_") as temporary:
        version = model_server.version(config.program, pathlib.Path(temporary))
        for jobs in groups:
            exports = {job: _export(job, pathlib.Path(temporary), texts, start) for job in jobs}
            turns = itertools.product(range(1, config.rounds + 1), jobs, texts)
            for number, job, batching in turns:
                # A failed load would fail again.
                left = [
                    load
                    for load in loads[job][batching]
                    if not any("error" in answer for answer in results[load])
                ]
                for load, answer in _measure(
                    exports[job], texts[batching], left, config, start, say
                ):
                    results[load].append(answer)
                    say(f"{_in_words(load)}, round {number} of {config.rounds}: {_figures(answer)}")
            for export in exports.values():
                shutil.rmtree(export.folder)
    return LoadOutcome(make_rows(results, config.seconds), version)


def _loads(job, batching, config):
    """The loads of one server; stock Keras takes no image files."""
    requests = [name for name in REQUESTS if job.framework == "keras_preact" or "jpeg" not in name]
    return [Load(job, batching, *each) for each in itertools.product(requests, config.clients)]


def _minutes(config, loads):
    servers = [each for of_job in loads.values() for each in of_job.values()]
    of_loads = sum(map(len, servers)) * (config.seconds + _WARM_UP_SECONDS)
    of_round = len(servers) * _START_SECONDS + of_loads
    return math.ceil((len(loads) * _EXPORT_SECONDS + config.rounds * of_round) / 60)


def _export(job, parent, texts, start):
    folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
    model_server.write_config(folder)
    order = {
        "job": dataclasses.asdict(job),
        "folder": str(folder),
        "name": model_server.NAME,
        "path": model_server.PREDICT,
        "warmup_images": sorted({model_server.largest_batch(text) for text in texts.values()}),
    }
    return Export(folder, start("server/exports.py", order))


def _measure(export, batching, loads, config, start, say):
    """Yields (load, answer) for the loads of one server, from its start to its end."""
    left = list(loads)
    try:
        if "error" in export.requests:
            raise ServerError(f"no export: {export.requests['error']}", ())
        if not left:
            return
        _choose_warmup(export.folder, model_server.largest_batch(batching))
        first = pathlib.Path(export.requests["rest_pixels"]["body"]).read_bytes()
        with model_server.start(config.program, export.folder, batching, first) as server:
            while left:
                answer = _load(server, export.requests, left[0], config, start)
                if answer.get("failed_answers") != 0:
                    server.check()
                yield left.pop(0), answer
    except ServerError as error:
        for line in error.output:
            say(f"  server: {line}")
        for load in left:
            yield load, {"error": str(error)}


def _choose_warmup(folder, images):
    """Gives the export the warm-up requests whose batches the server does not refuse."""
    chosen = folder / f"warmup_{images}"
    if chosen.exists():
        shutil.copy(chosen, folder / "saved_model" / "1" / warmup.FILE)


def _load(
    server: ModelServer, requests: Mapping[str, Mapping], load: Load, config: BenchmarkConfig, start
) -> dict:
    request = requests[load.request]
    broken = _broken(requests, config.broken_clients)
    work = {
        "ports": server.ports,
        "request": request,
        "clients": load.clients,
        "broken": broken,
        "seconds": config.seconds,
    }
    return {
        **start("server/load.py", work),
        "first_answer_seconds": server.first_answer_seconds,
        "peak_memory_mebibytes": server.peak_memory_mebibytes(),
        "request_bytes": pathlib.Path(request["body"]).stat().st_size,
        "broken_clients": sum(clients for _, clients in broken),
    }


def _broken(requests, clients) -> Sequence[tuple[dict, int]]:
    """Requests with files that cannot be decoded: every second client's goes over gRPC."""
    files = [each for each in requests.values() if each["broken_body"]]
    return [
        ({**request, "body": request["broken_body"]}, len(range(number, clients, len(files))))
        for number, request in enumerate(files)
    ]


def _in_words(load):
    job, many = load.job, "clients" if load.clients > 1 else "client"
    return (
        f"{job.net.name} {job.precision} {job.framework}, batching {load.batching}, "
        f"{REQUESTS[load.request]}, {load.clients} {many}"
    )


def _figures(answer):
    if "error" in answer:
        return answer["error"]
    p95 = answer["p95_milliseconds"]
    waiting = "no good answer" if p95 is None else f"p95 {p95:.1f} ms"
    return f"{answer['requests_per_second']:.1f} requests/s, {waiting}"
