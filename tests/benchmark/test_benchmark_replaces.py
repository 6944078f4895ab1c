"""A benchmark replaces the files of an earlier benchmark and no others."""

import os

import pytest
from test_benchmark_output import ROW

from keras_preact.benchmark import __main__ as program
from keras_preact.benchmark import output, plot
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.rows import COLUMNS, csv_bytes
from keras_preact.benchmark.runner import Outcome

CSV = csv_bytes([ROW])
OTHERS = {
    "csv": {
        "another table": b"name,salary\nann,1\n",
        "a table without columns of ours": b",".join(c.encode() for c in COLUMNS[1:]) + b"\n",
        "no table": b"years of work",
        "columns alone, cut off": ",".join(COLUMNS).encode(),
        "binary": bytes(range(256)),
    },
    "plot": {
        "a photograph": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(9999),
        "no picture": b"years of work",
    },
}


@pytest.fixture
def config(tmp_path):
    return BenchmarkConfig(csv=str(tmp_path / "a.csv"), plot=str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("flag", "contents"),
    [(flag, contents) for flag, others in OTHERS.items() for contents in others.values()],
    ids=[what for others in OTHERS.values() for what in others],
)
def test_another_file_is_refused_before_anything_is_measured(config, flag, contents):
    path = config.csv_path if flag == "csv" else config.plot_path
    path.write_bytes(contents)
    with pytest.raises(ValueError, match="that of an earlier benchmark") as refused:
        program.main({"csv": config.csv, "plot": config.plot}, run=None)
    assert f"Received: {flag}={path}, another file" in str(refused.value)
    assert path.read_bytes() == contents


def test_a_pipe_is_refused_and_not_waited_for(config):
    os.mkfifo(config.csv)
    with pytest.raises(ValueError, match="csv must be a new file"):
        output.check(config)


@pytest.mark.parametrize("before", ["absent", "empty", "an earlier benchmark"])
def test_an_earlier_benchmark_is_replaced(config, capsys, before):
    outcome = Outcome([ROW], {})
    if before == "empty":
        config.csv_path.write_bytes(b"")
        config.plot_path.write_bytes(b"")
    elif before == "an earlier benchmark":
        output.hand_over(Outcome([ROW, ROW], {}), config)
    output.check(config)
    output.hand_over(outcome, config)
    assert config.csv_path.read_bytes() == CSV
    assert config.plot_path.read_bytes() == plot.png([ROW], output.machine_line(outcome))
    assert f"Written: {config.csv}" in capsys.readouterr().out


def test_a_table_that_a_spreadsheet_has_saved_is_known_again(config):
    config.csv_path.write_bytes(CSV.replace(b"\n", b"\r\n"))
    output.check(config)
