"""Every load of every server, in turn, with a stub as the server."""

import contextlib
import json
import os
import pathlib
import sys
import urllib.request

import pytest
import stub_server

from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.server import run as server_run
from keras_preact.benchmark.server.rows import REQUESTS

FIGURES = {
    "answers": 10,
    "failed_answers": 0,
    "failed_answer": None,
    "requests_per_second": 9.0,
    "p50_milliseconds": 5.0,
    "p95_milliseconds": 6.0,
    "p99_milliseconds": 7.0,
    "clients_cores": 0.5,
}


class Scripts:
    """Stands in for the scripts: writes requests, and records the loads."""

    def __init__(self, answer=None, export=None):
        self.loads, self.orders, self.folders = [], [], []
        self._answer = answer or (lambda work: FIGURES)
        self._export = export or (lambda order: None)

    def start(self, script, argument):
        if script == "server/load.py":
            assert set(argument["ports"]) == {"rest", "grpc"}
            self.loads.append(argument)
            return self._answer(argument)
        assert script == "server/exports.py"
        self.orders.append(argument)
        framework, folder = argument["job"]["framework"], pathlib.Path(argument["folder"])
        (folder / "saved_model" / "1" / "assets.extra").mkdir(parents=True)
        for images in argument["warmup_images"] if framework == "keras_preact" else ():
            (folder / f"warmup_{images}").write_text(f"{images} images")
        requests = {}
        for name in REQUESTS:
            if framework == "keras_preact" or "pixels" in name:
                body, broken = folder / f"{name}.body", folder / f"{name}.broken"
                body.write_text(f"{framework} {name}")
                requests[name] = {
                    "protocol": name[:4],
                    "path": argument["path"],
                    "body": str(body),
                    "broken_body": str(broken) if "jpeg" in name else None,
                }
        return self._export(argument) or requests


@pytest.fixture
def measure(tmp_path):
    """Runs a benchmark on a stub; returns its rows and what was said."""

    def call(scripts, stub_flags="", **options):
        program = tmp_path / "stub"
        record = tmp_path / "record"
        command = f"{sys.executable} {stub_server.__file__} --record={record} {stub_flags}"
        program.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        program.chmod(0o755)
        small = {"models": (8,), "rounds": 1, "precisions": ("float32",)}
        options = {"frameworks": ("keras_preact", "keras"), **small, **options}
        config = BenchmarkConfig(
            modes=("server",), server=str(program), csv=str(tmp_path / "a.csv"), **options
        )
        said = []
        outcome = server_run.run(config, said.append, scripts.start)
        lines = record.read_text().splitlines() if record.exists() else []
        return outcome, said, [json.loads(line) for line in lines]

    return call


def test_frameworks_and_batching_take_turns_and_each_server_bears_every_load(measure):
    scripts = Scripts()
    outcome, said, starts = measure(scripts, clients=(1, 8), rounds=2, seconds=3)
    assert outcome.version == "TensorFlow ModelServer: 1.2.3"
    batched = [any("--enable_batching" in flag for flag in start["flags"]) for start in starts]
    assert batched == [True, False] * 4
    ours = [(name, clients) for name in REQUESTS for clients in (1, 8)]
    stock = [(name, clients) for name, clients in ours if "pixels" in name]
    made = [(pathlib.Path(each["request"]["body"]).stem, each["clients"]) for each in scripts.loads]
    assert made == ([*ours, *ours, *stock, *stock]) * 2
    assert {each["seconds"] for each in scripts.loads} == {3}
    rows = [(row.framework, row.batching, row.request, row.clients) for row in outcome.rows]
    assert rows == [
        (framework, batching, *each)
        for framework, loads in (("keras_preact", ours), ("keras", stock))
        for batching in ("written", "none")
        for each in loads
    ]
    first = outcome.rows[0]
    assert (first.rounds, first.answers, first.error_share) == (2, 20, 0)
    assert first.request_bytes == len("keras_preact rest_pixels")
    assert 0 < first.first_answer_seconds < 60
    # 8 starts of 8 s, 48 loads of 6 s, 2 exports of 15 s.
    assert said[0] == "This takes about 7 min: 24 loads a round."
    expected = "resnet8 float32 keras_preact, batching written, REST JSON, 1 client, round 1 of 2: "
    assert said[1] == expected + "9.0 requests/s, p95 6.0 ms"
    assert len(said) == 1 + 48
    # Nothing is left.
    assert not any(os.path.exists(order["folder"]) for order in scripts.orders)
    for start in starts:
        assert not stub_server.alive(start["pids"])


@pytest.mark.parametrize(("clients", "shared"), [(0, [0, 0]), (1, [1, 0]), (5, [3, 2])])
def test_broken_clients_send_files_over_both_protocols_where_files_are_taken(
    measure, clients, shared
):
    scripts = Scripts()
    outcome, *_ = measure(scripts, broken_clients=clients, clients=(1,), batching=("none",))
    ours, stock = scripts.loads[:4], scripts.loads[4:]
    for load in ours:
        assert [count for _, count in load["broken"]] == shared
        bodies = [pathlib.Path(request["body"]).name for request, _ in load["broken"]]
        assert bodies == ["rest_jpeg.broken", "grpc_jpeg.broken"]
    assert [load["broken"] for load in stock] == [[], []]
    assert {(row.framework, row.broken_clients) for row in outcome.rows} == {
        ("keras_preact", clients),
        ("keras", 0),
    }


def test_a_server_that_dies_under_load_is_an_error_and_the_others_are_measured(measure):
    def answer(work):
        # The stub dies at the second request; the first was that of its start.
        if "rest_jpeg" in work["request"]["body"]:
            address = f"http://127.0.0.1:{work['ports']['rest']}/"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, data=b"{}", timeout=30)
            return {**FIGURES, "failed_answers": 1}
        return FIGURES

    scripts = Scripts(answer)
    outcome, said, starts = measure(
        scripts, "--die_after=1", clients=(1,), batching=("none",), rounds=2
    )
    errors = {(row.framework, row.request): row.error for row in outcome.rows}
    stopped = "the server has stopped: exit code 7: a stub listens"
    assert errors == {
        ("keras_preact", "rest_pixels"): None,
        ("keras_preact", "rest_jpeg"): stopped,
        ("keras_preact", "grpc_pixels"): stopped,
        ("keras_preact", "grpc_jpeg"): stopped,
        ("keras", "rest_pixels"): None,
        ("keras", "grpc_pixels"): None,
    }
    assert [row.rounds for row in outcome.rows] == [2, 0, 0, 0, 2, 2]
    assert "  server: a stub listens" in said
    assert len(starts) == 4


def test_a_framework_without_an_export_leaves_the_other_alone(measure):
    def export(order):
        if order["job"]["framework"] == "keras":
            return {"error": "MemoryError: too large"}

    outcome, *_ = measure(Scripts(export=export), clients=(1,), batching=("none",))
    for row in outcome.rows:
        expected = "no export: MemoryError: too large" if row.framework == "keras" else None
        assert row.error == expected


def test_a_load_that_fails_is_not_tried_again(measure):
    scripts = Scripts(lambda work: {"error": "exit code 1: no answer came"})
    outcome, _, starts = measure(
        scripts, clients=(1,), batching=("none",), frameworks=("keras",), rounds=3
    )
    assert [row.error for row in outcome.rows] == ["exit code 1: no answer came"] * 2
    assert (len(starts), len(scripts.loads)) == (1, 2)


def test_the_warm_up_requests_fit_the_batching_of_each_server(measure, tmp_path):
    small = tmp_path / "small.txt"
    small.write_text("max_batch_size { value: 8 }")
    found = []

    def answer(work):
        folder = pathlib.Path(work["request"]["body"]).parent
        warmup = folder / "saved_model" / "1" / "assets.extra" / "tf_serving_warmup_requests"
        found.append(warmup.read_text())
        return FIGURES

    scripts, batching = Scripts(answer), ("written", str(small), "none")
    measure(scripts, clients=(1,), batching=batching, frameworks=("keras_preact",))
    assert found == ["32 images"] * 4 + ["8 images"] * 4 + ["32 images"] * 4
    assert scripts.orders[0]["warmup_images"] == [8, 32]
