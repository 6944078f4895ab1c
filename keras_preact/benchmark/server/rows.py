"""The figures of loads on a model server: a row for each batching, request and crowd of clients."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from keras_preact.benchmark.job import Job
from keras_preact.support.machine import cores

# In the order of the table.
REQUESTS = {
    "rest_pixels": "REST JSON",
    "rest_jpeg": "REST JPEG",
    "grpc_pixels": "gRPC tensor",
    "grpc_jpeg": "gRPC JPEG",
}


@dataclasses.dataclass(frozen=True)
class Load:
    """One load on one server.

    Args:
        job: names framework, network and precision.
        batching: "written", "none", or the file of batching parameters.
        request: one of `REQUESTS`.
        clients: that ask at the same time.
    """

    job: Job
    batching: str
    request: str
    clients: int


@dataclasses.dataclass(frozen=True)
class LoadRow:
    """The figures of a load, medians over the rounds; None for those that were not measured.

    Args:
        model: such as resnet164.
        precision: the name of a Keras dtype policy.
        framework: "keras_preact" or "keras".
        batching: "written", "none", or the file of batching parameters.
        request: one of `REQUESTS`.
        clients: that ask at the same time.
        broken_clients: that send image files which cannot be decoded, beside them.
        image_pixels: height and width of the net's images.
        request_bytes: of the body of a request.
        rounds: server starts that gave figures.
        seconds: counted in each round.
        requests_per_second: with good answers; median. The next two fields are the extremes.
        keras_preact_times: median of keras_preact over this one.
        p50_milliseconds: half of the good answers took at most this long.
        p95_milliseconds: 95 % of them.
        p99_milliseconds: 99 % of them.
        answers: of all rounds, good and bad.
        error_share: of the answers that were no good ones, 0 to 1.
        failed_answer: why the first of them was none.
        first_answer_seconds: from the start of the server to its first answer.
        peak_memory_mebibytes: resident memory of the server since its start.
        clients_cpu_share: what the clients took of the processor time of all cores, 0 to 1.
        error: why a load gave no figures.
    """

    model: str
    precision: str
    framework: str
    batching: str
    request: str
    clients: int
    broken_clients: int
    image_pixels: int
    request_bytes: int | None
    rounds: int
    seconds: int
    requests_per_second: float | None
    lowest_requests_per_second: float | None
    highest_requests_per_second: float | None
    keras_preact_times: float | None
    p50_milliseconds: float | None
    p95_milliseconds: float | None
    p99_milliseconds: float | None
    answers: int
    error_share: float | None
    failed_answer: str | None
    first_answer_seconds: float | None
    peak_memory_mebibytes: float | None
    clients_cpu_share: float | None
    error: str | None


def make_rows(results: Mapping[Load, Sequence[dict]], seconds: int) -> list[LoadRow]:
    """A row for each load.

    Args:
        results: of each round, the dictionary of `load.measure` with first_answer_seconds,
            peak_memory_mebibytes, request_bytes and broken_clients, or {"error": text}.
        seconds: counted in each round.
    """
    speeds = {load: _median(answers, "requests_per_second") for load, answers in results.items()}
    rows = []
    for load, answers in results.items():
        ours = dataclasses.replace(
            load, job=dataclasses.replace(load.job, framework="keras_preact")
        )
        rows.append(_row(load, answers, speeds.get(ours), seconds))
    return rows


def _row(load, answers, ours, seconds):
    speed, speeds = _median(answers, "requests_per_second"), _values(answers, "requests_per_second")
    count, failed = sum(_values(answers, "answers")), sum(_values(answers, "failed_answers"))
    cores_taken = _median(answers, "clients_cores")
    return LoadRow(
        model=load.job.net.name,
        precision=load.job.precision,
        framework=load.job.framework,
        batching=load.batching,
        request=load.request,
        clients=load.clients,
        broken_clients=max(_values(answers, "broken_clients"), default=0),
        image_pixels=load.job.image_size,
        request_bytes=next(iter(_values(answers, "request_bytes")), None),
        rounds=len(speeds),
        seconds=seconds,
        requests_per_second=speed,
        lowest_requests_per_second=min(speeds, default=None),
        highest_requests_per_second=max(speeds, default=None),
        keras_preact_times=ours / speed if ours and speed else None,
        **{
            name: _median(answers, name)
            for name in (
                "p50_milliseconds",
                "p95_milliseconds",
                "p99_milliseconds",
                "first_answer_seconds",
                "peak_memory_mebibytes",
            )
        },
        answers=count,
        error_share=failed / count if count else None,
        failed_answer=next(iter(_values(answers, "failed_answer")), None),
        clients_cpu_share=None if cores_taken is None else cores_taken / cores(),
        error=next(iter(_values(answers, "error")), None),
    )


def _median(answers, name):
    values = _values(answers, name)
    return statistics.median(values) if values else None


def _values(answers, name):
    return [answer[name] for answer in answers if answer.get(name) is not None]
