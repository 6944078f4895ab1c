"""The rows of a load: their medians, their table, their CSV."""

import csv
import dataclasses
import io

import pytest

from keras_preact.benchmark import output
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_net
from keras_preact.benchmark.rows import Row, csv_bytes
from keras_preact.benchmark.server.rows import REQUESTS, Load, LoadRow, make_rows
from keras_preact.benchmark.server.run import LoadOutcome
from keras_preact.support.machine import cores


def make_load(framework, request="rest_pixels", batching="written", clients=8):
    job = Job(framework, "server", "float32", make_net(8), batch_size=1, image_size=32, steps=1)
    return Load(job, batching, request, clients)


def answer(speed, p95=20.0, failed=0, **others):
    return {
        "answers": 100,
        "failed_answers": failed,
        "failed_answer": "400: a reason" if failed else None,
        "requests_per_second": speed,
        "p50_milliseconds": 10.0,
        "p95_milliseconds": p95,
        "p99_milliseconds": 30.0,
        "clients_cores": 0.25 * cores(),
        "first_answer_seconds": 2.5,
        "peak_memory_mebibytes": 420.4,
        "request_bytes": 1234,
        "broken_clients": 0,
        **others,
    }


def test_figures_are_medians_and_errors_are_counted_over_all_rounds():
    ours, stock = make_load("keras_preact"), make_load("keras")
    results = {
        ours: [answer(10, 1.0, failed=3), answer(1234.56, 2.0), answer(40, 9.0)],
        stock: [answer(20), answer(16)],
    }
    first, second = make_rows(results, seconds=5)
    assert first.requests_per_second == 40
    assert (first.lowest_requests_per_second, first.highest_requests_per_second) == (10, 1234.56)
    assert (first.p95_milliseconds, first.rounds, first.answers) == (2.0, 3, 300)
    assert (first.error_share, first.failed_answer) == (0.01, "400: a reason")
    assert (first.clients_cpu_share, first.request_bytes) == (0.25, 1234)
    assert second.requests_per_second == 18
    assert second.keras_preact_times == 40 / 18
    assert second.error_share == 0 and second.failed_answer is None


def test_ours_is_compared_under_the_same_request_batching_and_clients():
    results = {
        make_load("keras_preact", batching="none"): [answer(10)],
        make_load("keras_preact", "grpc_pixels"): [answer(20)],
        make_load("keras_preact", clients=1): [answer(30)],
        make_load("keras"): [answer(40)],
    }
    assert [row.keras_preact_times for row in make_rows(results, 5)] == [1, 1, 1, None]


def test_a_load_that_failed_has_its_error_and_no_figures():
    [row] = make_rows({make_load("keras"): [{"error": "the server has stopped"}]}, 5)
    assert row.error == "the server has stopped"
    assert (row.rounds, row.answers, row.error_share, row.requests_per_second) == (0, 0, None, None)


@pytest.fixture
def rows():
    results = {make_load("keras_preact", request): [answer(1234.56)] for request in REQUESTS}
    results[make_load("keras_preact", "grpc_jpeg", clients=64)] = [
        answer(20, p95=98765.4, failed=7, broken_clients=3)
    ]
    error = [{"error": "the server has stopped: exit code 1: " + "a long story " * 20}]
    for batching in ("none", "a file"):
        for clients in (1, 8):
            results[make_load("keras", batching=batching, clients=clients)] = error
    return make_rows(results, 5)


@pytest.fixture
def config(tmp_path):
    return BenchmarkConfig(modes=("server",), server="/bin/true", csv=str(tmp_path / "a.csv"))


def test_the_table_has_a_block_for_each_server(rows, config):
    lines = output.text(LoadOutcome(rows, "TensorFlow ModelServer: 1.2.3"), config).splitlines()
    start = "resnet8 float32, keras_preact, batching written; first answer after 2.5 s"
    block = lines.index(start)
    figures = "REST JSON 8 1,234.6 1.00 10.0 20.0 30.0 0.0% 420 MiB 25%"
    assert " ".join(lines[block + 1].split()) == figures
    assert lines[block + 5].split()[:4] == ["gRPC", "JPEG", "64", "20.0"]
    assert lines[block + 6] == "    an answer: 400: a reason"
    for title in ("batching none", "batching a file"):
        failed = lines.index(f"resnet8 float32, keras, {title}")
        assert lines[failed + 1].split() == ["REST", "JSON", "1"]
        assert lines[failed + 2].startswith("    failed: the server has stopped: exit code 1: a")
        # The same error is told once.
        assert lines[failed + 3].split() == ["REST", "JSON", "8"]
        assert "failed" not in lines[failed + 4]
    assert max(map(len, lines)) <= output.WIDTH
    shown = " ".join(" ".join(lines).split())
    assert "TensorFlow ModelServer: 1.2.3" in shown
    assert "medians of 3 starts of the server, 5 s for each load" in shown
    assert "3 that send image files which cannot be decoded" in shown


def test_without_broken_clients_none_are_mentioned(rows, config):
    shown = output.text(LoadOutcome(rows[:1], None), dataclasses.replace(config, rounds=1))
    assert "cannot be decoded" not in shown
    assert "single measurements" in shown


def test_the_csv_has_the_columns_of_a_load_and_replaces_that_of_any_benchmark(rows, config, capsys):
    config.csv_path.write_bytes(csv_bytes([], Row))
    output.check(config)
    output.hand_over(LoadOutcome(rows, None), config)
    assert f"Written: {config.csv}" in capsys.readouterr().out
    read = list(csv.DictReader(io.StringIO(config.csv_path.read_text())))
    assert len(read) == len(rows)
    for line, row in zip(read, rows, strict=True):
        for name, value in dataclasses.asdict(row).items():
            if isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))
    assert list(read[0]) == [field.name for field in dataclasses.fields(LoadRow)]
    output.check(config)
    output.check(BenchmarkConfig(csv=config.csv))
    config.csv_path.write_text("years of work\n")
    with pytest.raises(ValueError, match="csv must be a new file"):
        output.check(config)
