"""Loads model servers: every request and number of clients, each round on fresh servers."""

import dataclasses
import itertools
import math
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_jobs
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
    bench = _Bench(config, say, start)
    groups = make_jobs(config)
    loads = {job: bench.loads(job) for job in itertools.chain(*groups)}
    results = {load: [] for of_job in loads.values() for load in itertools.chain(*of_job.values())}
    say(f"This takes about {_minutes(config, loads)} min: {len(results)} loads a round.")
    with tempfile.TemporaryDirectory(prefix="keras_preact_benchmark_") as temporary:
        folder = pathlib.Path(temporary)
        version = model_server.version(config.program, folder)
        for jobs in groups:
            exports = {job: bench.export(job, folder) for job in jobs}
            turns = itertools.product(range(1, config.rounds + 1), jobs, bench.texts)
            for number, job, batching in turns:
                # A failed load would fail again.
                left = [each for each in loads[job][batching] if not _has_failed(results[each])]
                for load, answer in bench.measure(exports[job], batching, left):
                    results[load].append(answer)
                    say(f"{_in_words(load)}, round {number} of {config.rounds}: {_figures(answer)}")
            for export in exports.values():
                shutil.rmtree(export.folder)
    return LoadOutcome(make_rows(results, config.seconds), version)


class _Bench:
    """Exports networks, and loads servers with them."""

    def __init__(self, config, say, start):
        self._config, self._say, self._start = config, say, start
        self.texts = {each: model_server.batching_text(each) for each in config.batching}

    def loads(self, job: Job) -> dict[str, list[Load]]:
        """The loads of one export, by batching. Stock Keras takes no image files."""
        takes_files = job.framework == "keras_preact"
        requests = [name for name in REQUESTS if takes_files or "jpeg" not in name]
        pairs = list(itertools.product(requests, self._config.clients))
        return {each: [Load(job, each, *pair) for pair in pairs] for each in self.texts}

    def export(self, job: Job, parent: pathlib.Path) -> Export:
        """Writes the export of a job into a new folder."""
        folder = pathlib.Path(tempfile.mkdtemp(dir=parent))
        model_server.write_config(folder)
        sizes = {model_server.largest_batch(text) for text in self.texts.values()}
        order = {
            "job": dataclasses.asdict(job),
            "folder": str(folder),
            "name": model_server.NAME,
            "path": model_server.PREDICT,
            "warmup_images": sorted(sizes),
        }
        return Export(folder, self._start("server/exports.py", order))

    def measure(
        self, export: Export, batching: str, loads: Sequence[Load]
    ) -> Iterator[tuple[Load, dict]]:
        """Yields each load with its answer, from the start of a server to its end."""
        text, left = self.texts[batching], list(loads)
        if not left:
            return
        try:
            if "error" in export.requests:
                raise ServerError(f"no export: {export.requests['error']}", ())
            _choose_warmup(export.folder, model_server.largest_batch(text))
            first = pathlib.Path(export.requests["rest_pixels"]["body"]).read_bytes()
            with model_server.start(self._config.program, export.folder, text, first) as server:
                while left:
                    answer = self._load(server, export.requests, left[0])
                    if answer.get("failed_answers") != 0:
                        server.check()
                    yield left.pop(0), answer
        except ServerError as error:
            for line in error.output:
                self._say(f"  server: {line}")
            for load in left:
                yield load, {"error": str(error)}

    def _load(self, server: ModelServer, requests, load) -> dict:
        request = requests[load.request]
        broken = _broken(requests, self._config.broken_clients)
        work = {
            "ports": server.ports,
            "request": request,
            "clients": load.clients,
            "broken": broken,
            "seconds": self._config.seconds,
        }
        return {
            **self._start("server/load.py", work),
            "first_answer_seconds": server.first_answer_seconds,
            "peak_memory_mebibytes": server.peak_memory_mebibytes(),
            "request_bytes": pathlib.Path(request["body"]).stat().st_size,
            "broken_clients": sum(clients for _, clients in broken),
        }


def _minutes(config, loads):
    servers = [each for of_job in loads.values() for each in of_job.values()]
    of_loads = sum(map(len, servers)) * (config.seconds + _WARM_UP_SECONDS)
    of_round = len(servers) * _START_SECONDS + of_loads
    return math.ceil((len(loads) * _EXPORT_SECONDS + config.rounds * of_round) / 60)


def _has_failed(answers):
    return any("error" in answer for answer in answers)


def _choose_warmup(folder, images):
    """Gives the export the warm-up requests whose batches the server does not refuse."""
    chosen = folder / f"warmup_{images}"
    if chosen.exists():
        shutil.copy(chosen, folder / "saved_model" / "1" / warmup.FILE)


def _broken(requests, clients):
    """(request, clients) with files that cannot be decoded: every second client's, over gRPC."""
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
