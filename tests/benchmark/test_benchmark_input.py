"""The mode input of the benchmark: photographs read by two pipelines in turn."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_preact.benchmark import output
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.input import run as input_run
from keras_preact.benchmark.input.run import InputRow
from keras_preact.benchmark.rows import csv_bytes, is_csv
from keras_preact.benchmark.runner import start_script


def make_config(tmp_path, **options):
    return BenchmarkConfig(
        **{"modes": ("input",), "csv": str(tmp_path / "a.csv"), "rounds": 3, **options}
    )


class Processes:
    """Stands in for processes: notes their arguments and answers from a list for each pipeline."""

    def __init__(self, **answers):
        self.answers = {name: iter(some) for name, some in answers.items()}
        self.jobs = []

    def __call__(self, script, job):
        assert script == "input/measure.py"
        self.jobs.append(job)
        return next(self.answers[job["pipeline"]])


def speeds(*values):
    return [{"images_per_second": value, "cpu_milliseconds": 1000 / value} for value in values]


def test_pipelines_take_turns_and_rows_hold_medians(tmp_path):
    processes = Processes(keras_preact=speeds(300.0, 100.0, 200.0), official=speeds(400, 500, 600))
    outcome = input_run.run(make_config(tmp_path), lambda line: None, processes)
    assert [job["pipeline"] for job in processes.jobs] == ["keras_preact", "official"] * 3
    assert {job["image_size"] for job in processes.jobs} == {224}
    ours, official = outcome.rows
    assert (ours.images_per_second, official.images_per_second) == (200.0, 500)
    assert (ours.lowest_images_per_second, ours.highest_images_per_second) == (100.0, 300.0)
    assert ours.images_per_second_and_core == 200.0 / ours.cores
    assert (ours.cpu_milliseconds, ours.keras_preact_times) == (1000 / 300, 1.0)
    assert official.keras_preact_times == 0.4


def test_a_pipeline_that_fails_is_not_started_again(tmp_path):
    processes = Processes(keras_preact=speeds(1.0, 2.0, 3.0), official=[{"error": "no JPEG"}])
    config = make_config(tmp_path)
    said = []
    outcome = input_run.run(config, said.append, processes)
    assert len(processes.jobs) == 4 and "official: no JPEG" in said[1]
    assert (outcome.rows[1].error, outcome.rows[1].rounds) == ("no JPEG", 0)
    assert "official failed: no JPEG" in output.text(outcome, config)


def test_the_table_says_what_was_read_in_short_lines(tmp_path):
    config = make_config(tmp_path)
    processes = Processes(keras_preact=speeds(3.0, 3.0, 3.0), official=speeds(6, 6, 6))
    outcome = input_run.run(config, lambda line: None, processes)
    text = output.text(outcome, config)
    assert "two photographs that come with scikit-learn" in text and "0.50" in text
    assert max(map(len, text.splitlines())) <= output.WIDTH
    assert is_csv(csv_bytes(outcome.rows, InputRow), InputRow)


def test_photographs_made_here_have_the_size_and_colours_that_the_table_says(tmp_path):
    size = input_run.write_photographs(tmp_path)
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len(files) == 66 and len({file.read_bytes() for file in files}) == 66
    assert size == np.mean([file.stat().st_size for file in files])
    for file in files[::20]:
        image = Image.open(io.BytesIO(file.read_bytes()))
        assert image.size == (500, 375)
        # 4:2:0: luma has twice the samples of chroma in each direction.
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.slow
def test_both_pipelines_measure_a_folder_of_ones_own(tmp_path):
    input_run.write_photographs(tmp_path)
    job = {"data_dir": str(tmp_path), "image_size": 32, "batch_size": 4, "steps": 2}
    for name in input_run.PIPELINES:
        answer = start_script("input/measure.py", {**job, "pipeline": name})
        assert "error" not in answer and min(answer.values()) > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ("input", "train")}, "input alone .* Received: modes=input,train"),
        ({"modes": ("train",), "data_dir": "a"}, "data_dir goes with --modes=input"),
        ({"data_dir": "/nowhere"}, "/nowhere must be a folder that holds train/CLASS/IMAGE"),
    ],
)
def test_flags_that_do_not_fit_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make_config(tmp_path, **options)
