"""The load on a server whose waiting times and errors are known."""

import contextlib
import json
import subprocess
import sys
import threading
import time
import types
from concurrent import futures

import grpc
import numpy as np
import pytest
import stub_server
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from keras_preact.benchmark.runner import start_script
from keras_preact.benchmark.server import load

QUICK = (0.1, 5.0)
PATH = "/v1/models/net:predict"
GOOD = json.dumps(stub_server.GOOD).encode()


@contextlib.contextmanager
def rest_server(**options):
    """A stub that waits, and answers some requests with an error; yields its port."""
    options = vars(stub_server.Handler.options) | options
    namespace = {"options": types.SimpleNamespace(**options), "count": 0}
    handler = type("Handler", (stub_server.Handler,), namespace)
    with stub_server.Server(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextlib.contextmanager
def grpc_server(answer):
    """A server that answers each request's bytes with answer(bytes, context); yields its port."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, details):
            assert details.method == "/tensorflow.serving.PredictionService/Predict"
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


def response(**outputs):
    message = predict_pb2.PredictResponse()
    message.model_spec.name = "net"
    for name, value in outputs.items():
        message.outputs[name].CopyFrom(tf.make_tensor_proto(value))
    return message.SerializeToString()


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1001])
@pytest.mark.parametrize("percent", load.PERCENTILES)
def test_percentiles_are_those_of_numpys_exact_definition(count, percent):
    values = np.sort(np.random.default_rng(count).lognormal(size=count))
    expected = np.percentile(values, percent, method="inverted_cdf")
    assert load.nearest_rank(values, percent) == expected


def test_of_a_hundred_values_the_95th_is_the_95th_percentile():
    assert [load.nearest_rank(range(1, 101), percent) for percent in (50, 95, 99)] == [50, 95, 99]


@pytest.mark.parametrize(
    ("status", "text", "problem"),
    [
        (200, GOOD, None),
        (200, b'{"predictions": [{"error": "", "scores": [1]}]}', None),
        (200, b'{"predictions": [{"error": "no image", "scores": [1]}]}', "no image"),
        (200, b'{"predictions": []}', "0 rows for one image"),
        (200, b'{"predictions": [[1], [2]]}', "2 rows for one image"),
        (400, b'{"error": "a reason"}', "400: a reason"),
        (503, b'{"error": "queue full"}', "503: queue full"),
        (200, b"<html>", "200: b'<html>'"),
        (200, b"[1]", "200: b'[1]'"),
        (502, b"", "502: b''"),
    ],
)
def test_an_answer_over_rest_is_good_or_says_why_not(status, text, problem):
    assert load.rest_problem(status, text) == problem


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ({"scores": np.ones((1, 1000), np.float32), "classes": [[b"ant", b"bee"]]}, None),
        ({"scores": np.ones((1, 5)), "error": [b""]}, None),
        ({"scores": np.ones((1, 5)), "error": [b"no image"]}, "no image"),
        ({"scores": np.ones((2, 5))}, "2 rows for one image"),
        ({"scores": np.ones((300, 5))}, "300 rows for one image"),
        ({"scores": np.ones((0, 5))}, "0 rows for one image"),
    ],
)
def test_an_answer_over_grpc_is_good_or_says_why_not(outputs, problem):
    assert load.grpc_problem(response(**outputs)) == problem


def test_waiting_times_and_the_share_of_errors_are_those_of_the_server():
    clients, delay, seconds = 4, 0.05, 1.5
    with rest_server(delay=delay, fail_every=4) as port:
        asks = [load.over_rest(port, PATH, b"{}") for _ in range(clients)]
        result = load.measure(asks, [], seconds, QUICK)
    most = clients / delay
    assert result["answers"] <= most * seconds + 2 * clients
    assert result["failed_answers"] == pytest.approx(result["answers"] / 4, abs=clients)
    assert result["failed_answer"] == "400: every so often"
    assert 0.2 * most < result["requests_per_second"] <= 0.75 * (most + clients / seconds) + 1
    percentiles = [result[f"p{percent}_milliseconds"] for percent in load.PERCENTILES]
    assert percentiles == sorted(percentiles)
    assert 1000 * delay <= percentiles[0] < 4000 * delay
    # Waiting costs no processor time.
    assert 0 < result["clients_cores"] < 0.5


def every_time(*problems, seconds=0.01):
    """A client whose answers take some seconds and have these problems, in turn."""
    turn = iter(problems * 10_000)

    def ask():
        time.sleep(seconds)
        return next(turn)

    return ask


def test_what_broken_clients_are_told_does_not_count():
    result = load.measure([every_time(None)], [every_time("broken")] * 3, 0.5, QUICK)
    assert result["failed_answers"] == 0
    assert result["answers"] <= 51


def test_without_a_good_answer_there_are_no_waiting_times():
    result = load.measure([every_time("no", "never")], [], 0.2, QUICK)
    assert result["failed_answers"] == result["answers"] > 0
    assert result["requests_per_second"] == 0
    assert result["p50_milliseconds"] is None and result["p99_milliseconds"] is None


def test_an_answer_counts_when_it_comes_whenever_it_was_asked_for():
    # 0.4 s each: a window of 1 s holds two or three, of which the first began before it.
    result = load.measure([every_time(None, seconds=0.4)], [], 1, QUICK)
    assert result["answers"] in (2, 3)
    assert result["p50_milliseconds"] >= 400


def test_answers_that_come_in_batches_are_counted_in_whole_batches():
    def ask():
        # Answers come at multiples of 0.3 s, to all at once.
        time.sleep(0.3 - time.perf_counter() % 0.3)

    result = load.measure([ask] * 8, [], 1, QUICK)
    assert result["answers"] % 8 == 0
    # Of 1 s by the clock, 3 or 4 batches would be 24 or 32.
    assert result["requests_per_second"] == pytest.approx(8 / 0.3, rel=0.08)


def test_counting_waits_for_the_first_answer_of_every_client():
    first = every_time("the first", *[None] * 9, seconds=0.6)
    # Counts from 0.6 s to 1.4 s; without waiting, from 0.1 s to 0.9 s.
    result = load.measure([first, every_time(None)], [], 0.8, QUICK)
    assert result["failed_answers"] == 0
    assert result["answers"] > 2


def test_a_server_that_gives_no_answer_is_an_error():
    with pytest.raises(TimeoutError, match=r"no answer came within 0.2 s"):
        load.measure([every_time(None, seconds=2)], [], 0.2, warm_up_seconds=(0, 1))


def test_a_client_that_meets_a_surprise_goes_on():
    def surprised():
        time.sleep(0.01)
        raise ZeroDivisionError("of all things")

    result = load.measure([surprised], [], 0.2, QUICK)
    assert result["failed_answers"] > 2
    assert result["failed_answer"] == "ZeroDivisionError: of all things"


def test_a_port_where_nobody_listens_is_an_error_each_time():
    with rest_server() as port:
        pass
    ask = load.over_rest(port, PATH, b"{}")
    assert ask().startswith("ConnectionRefusedError: ")
    assert ask().startswith("ConnectionRefusedError: ")


def test_over_grpc_the_bytes_arrive_as_they_are_and_refusals_are_told():
    received = []

    def answer(message, context):
        received.append(message)
        if message == b"bad":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a reason")
        return response(scores=np.ones((1, 5)))

    with grpc_server(answer) as port:
        assert load.over_grpc(port, b"any bytes")() is None
        assert load.over_grpc(port, b"bad")() == "INVALID_ARGUMENT: a reason"
    assert received == [b"any bytes", b"bad"]


def test_the_process_of_the_clients_prints_its_figures(tmp_path):
    body = tmp_path / "body"
    body.write_bytes(b"{}")
    request = {"protocol": "rest", "path": PATH, "body": str(body)}
    with rest_server(delay=0.01) as port:
        work = {"ports": {"rest": port}, "request": request, "clients": 2, "seconds": 1}
        result = start_script("server/load.py", {**work, "broken": [[request, 1], [request, 0]]})
    assert result["failed_answers"] == 0 and result["answers"] > 5, result
    assert result["p50_milliseconds"] >= 10


def test_the_process_of_the_clients_is_free_of_tensorflow():
    # Its threads and memory would be those of the figures.
    program = (
        "import runpy, sys\n"
        f"names = runpy.run_path({load.__file__!r})\n"
        "import grpc\n"
        "names['over_rest'](1, '/', b'')()\n"
        "print([name for name in ('tensorflow', 'numpy', 'keras') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
