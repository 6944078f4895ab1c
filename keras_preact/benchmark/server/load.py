"""Loads a model server with concurrent clients: python -P load.py < WORK prints a line of JSON.

Imports the standard library and grpcio alone and is started by its path: importing the
package would bring TensorFlow into this process and its threads into the figures.
"""

import dataclasses
import http.client
import itertools
import json
import math
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

HOST = "127.0.0.1"
PREDICT = "/tensorflow.serving.PredictionService/Predict"
PERCENTILES = (50, 95, 99)

# Connections, queues and the server's memory settle in the first. Counting begins when every
# client has had an answer, at the latest after the second.
WARM_UP_SECONDS = (1.0, 15.0)
# Limits one answer. The server itself gives up after 30 s.
TIMEOUT_SECONDS = 40.0
# A refused connection costs nothing, and clients without a pause would take all cores.
PAUSE_SECONDS = 0.01
# Python lets a thread compute this long while others wait: less than an answer takes.
SWITCH_SECONDS = 0.0005

# Sends one request, waits for its answer, and returns why that is no good answer, or None.
Ask = Callable[[], str | None]


@dataclasses.dataclass(frozen=True)
class Sample:
    """One answer: when it came, how long it took, and why it is no good answer, or None."""

    end_seconds: float
    seconds: float
    problem: str | None


def over_rest(port: int, path: str, body: bytes) -> Ask:
    """Sends a body over a connection that is kept."""
    connection = http.client.HTTPConnection(HOST, port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json"}

    def ask():
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return rest_problem(response.status, response.read())
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            time.sleep(PAUSE_SECONDS)
            return f"{type(error).__name__}: {error}"

    return ask


def over_grpc(port: int, body: bytes) -> Ask:
    """Sends a serialized PredictRequest over a connection of its own."""
    import grpc

    options = {
        "grpc.enable_http_proxy": 0,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.max_receive_message_length": -1,
    }
    channel = grpc.insecure_channel(f"{HOST}:{port}", list(options.items()))
    grpc.channel_ready_future(channel).result(timeout=TIMEOUT_SECONDS)
    # Without serializers, it takes and returns bytes.
    predict = channel.unary_unary(PREDICT)

    def ask():
        try:
            return grpc_problem(predict(body, timeout=TIMEOUT_SECONDS))
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                time.sleep(PAUSE_SECONDS)
            return f"{error.code().name}: {error.details()}"

    return ask


def rest_problem(status: int, text: bytes) -> str | None:
    """Why an answer over REST is not that to one good image; None if it is."""
    try:
        answer = json.loads(text)
        if status != http.HTTPStatus.OK:
            return f"{status}: {answer['error']}"
        rows = answer["predictions"]
    except (ValueError, KeyError, TypeError):
        return f"{status}: {text[:200]!r}"
    if len(rows) != 1:
        return f"{len(rows)} rows for one image"
    problem = rows[0].get("error") if isinstance(rows[0], dict) else None
    return problem or None


def grpc_problem(message: bytes) -> str | None:
    """Why a serialized PredictResponse is not that to one good image; None if it is.

    Reads the fields by their numbers, as TensorFlow's classes would bring TensorFlow along.
    """
    for number, entry in _fields(message):
        # PredictResponse.outputs is a map from names to TensorProto.
        if number == 1:
            named = dict(_fields(entry))
            tensor = list(_fields(named.get(2, b"")))
            # tensor_shape, its first dim and the dim's size.
            [shape] = [value for number, value in tensor if number == 2] or [b""]
            sizes = [dict(_fields(value)).get(1, 0) for number, value in _fields(shape)]
            if sizes and sizes[0] != 1:
                return f"{sizes[0]} rows for one image"
            texts = [value for number, value in tensor if number == 8 and value]
            if named.get(1) == b"error" and texts:
                return texts[0].decode(errors="replace")
    return None


def _fields(message) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a serialized message: (number, integer or bytes)."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if size is None:
                size, place = _varint(message, place)
            value, place = message[place : place + size], place + size
        yield tag >> 3, value


def _varint(message, place):
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 127) << shift, shift + 7, place + 1
        if byte < 128:
            return value, place


def nearest_rank(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of the values do not exceed."""
    return ordered[max(math.ceil(percent / 100 * len(ordered)), 1) - 1]


def measure(
    good: Sequence[Ask],
    broken: Sequence[Ask],
    seconds: float,
    warm_up_seconds: tuple[float, float] = WARM_UP_SECONDS,
) -> dict:
    """Lets every client ask again as soon as it has its answer, and counts for some seconds.

    Args:
        good: a function for each client that counts.
        broken: a function for each client whose answers do not count.
        seconds: after the warm-up. Answers that come in this time count, whenever they were
            asked for: those after the first, up to the first one that comes later. A server
            with batches gives many at once, and time from batch to batch is whole batches.
        warm_up_seconds: at least and at most, before counting begins. In between, it begins
            when every client has had an answer.

    Returns:
        answers; failed_answers among them, and failed_answer, the first one's reason or None;
        requests_per_second, of good answers; p50_milliseconds, p95_milliseconds and
        p99_milliseconds of good answers, None without any; clients_cores, the processor
        seconds that this process took in a second.

    Raises:
        TimeoutError: if no answer came.
    """
    stop = threading.Event()
    samples = [[] for _ in (*good, *broken)]
    threads = [
        threading.Thread(target=_repeat, args=(ask, into, stop), daemon=True)
        for ask, into in zip((*good, *broken), samples, strict=True)
    ]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
    counted, (least, most) = samples[: len(good)], warm_up_seconds
    time.sleep(least)
    while not all(counted) and time.perf_counter() - begin < most:
        time.sleep(PAUSE_SECONDS)
    start, cpu = time.perf_counter(), time.process_time()
    time.sleep(seconds)
    end, cpu_seconds = time.perf_counter(), time.process_time() - cpu
    stop.set()
    # The next load should not find requests of this one.
    deadline = end + TIMEOUT_SECONDS
    for thread in threads:
        thread.join(max(deadline - time.perf_counter(), 0))
    every = sorted(itertools.chain(*counted), key=lambda sample: sample.end_seconds)
    first, last = (_first_after(every, moment) for moment in (start, end))
    inside = [each for each in every if first < each.end_seconds <= last]
    if not inside:
        raise TimeoutError(f"no answer came within {seconds} s")
    times = sorted(each.seconds for each in inside if each.problem is None)
    problems = [each.problem for each in inside if each.problem is not None]
    return {
        "answers": len(inside),
        "failed_answers": len(problems),
        "failed_answer": problems[0] if problems else None,
        "requests_per_second": len(times) / (last - first),
        **{
            f"p{percent}_milliseconds": 1000 * nearest_rank(times, percent) if times else None
            for percent in PERCENTILES
        },
        "clients_cores": cpu_seconds / (end - start),
    }


def _first_after(samples, moment):
    """When the first answer since a moment came; the moment itself if none did."""
    return next((each.end_seconds for each in samples if each.end_seconds >= moment), moment)


def _repeat(ask, samples, stop):
    while not stop.is_set():
        begin = time.perf_counter()
        try:
            problem = ask()
        except Exception as error:
            # Every kind: a thread that ends would be a client less.
            problem = f"{type(error).__name__}: {error}"
        end = time.perf_counter()
        samples.append(Sample(end, end - begin, problem))


def make_asks(request: dict, clients: int, ports: dict) -> list[Ask]:
    """A function for each client.

    Args:
        request: protocol, "rest" or "grpc"; body, the path of a file; path, of the URL.
        clients: how many.
        ports: by protocol.
    """
    body = pathlib.Path(request["body"]).read_bytes()
    port = ports[request["protocol"]]
    if request["protocol"] == "grpc":
        return [over_grpc(port, body) for _ in range(clients)]
    return [over_rest(port, request["path"], body) for _ in range(clients)]


def main(work: dict) -> dict:
    """Loads a server; `work` is a `run.Load` and its requests as dictionaries."""
    sys.setswitchinterval(SWITCH_SECONDS)
    good = make_asks(work["request"], work["clients"], work["ports"])
    broken = [
        ask
        for request, clients in work["broken"]
        for ask in make_asks(request, clients, work["ports"])
    ]
    return measure(good, broken, work["seconds"])


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
