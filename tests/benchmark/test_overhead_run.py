"""Mode overhead: its rows, its table, its CSV."""

import csv
import io

import pytest

from keras_preact.benchmark import output
from keras_preact.benchmark.config import BenchmarkConfig
from keras_preact.benchmark.job import Job, make_net
from keras_preact.benchmark.overhead.run import OverheadRow, make_rows, run
from keras_preact.benchmark.rows import csv_bytes

JOB = Job("keras_preact", "overhead", "float32", make_net(8), 1, 8, None)


def launch(steps, pairs, empty, operations=None, chosen=False):
    return {
        "steps": steps,
        "chosen": chosen,
        "pairs": pairs,
        "empty": empty,
        "operations": operations,
    }


def answer(*launches):
    return {"device": "CPU", "xla": False, "launches": list(launches)}


ANSWERS = [
    answer(
        launch(1, [(11, 10), (13, 11)], [1.5, 1.4], {"outside": 28, "inside": 304}),
        launch(40, [(10.5, 10)], [0.1], {"outside": 886, "inside": 12160}, chosen=True),
    ),
    answer(
        launch(1, [(13, 10)], [1.7], {"outside": 28, "inside": 304}),
        launch(50, [(10.1, 10)], [0.3], {"outside": 1106, "inside": 15200}, chosen=True),
    ),
]


@pytest.fixture
def config(tmp_path):
    return BenchmarkConfig(
        models=(8,),
        precisions=("float32",),
        modes=("overhead",),
        rounds=2,
        csv=str(tmp_path / "figures.csv"),
    )


def test_overhead_is_the_median_difference_of_pairs_measured_in_turn():
    first, second = make_rows(JOB, ANSWERS)
    # Differences 1, 2 and 3, though the medians of launches and function differ by 3.
    assert (first.steps_per_launch, first.chosen_by_run) == (1, False)
    assert (first.launch_milliseconds, first.compiled_milliseconds) == (13, 10)
    assert first.overhead_milliseconds == 2
    assert (first.lower_quartile_milliseconds, first.upper_quartile_milliseconds) == (1.5, 2.5)
    assert (first.empty_milliseconds, first.rounds, first.pairs) == (1.5, 2, 3)
    assert (first.outside_operations, first.inside_operations) == (28, 304)
    assert (second.steps_per_launch, second.chosen_by_run) == (45, True)
    assert second.overhead_milliseconds == pytest.approx(0.3)
    assert second.outside_operations == pytest.approx((22.15 + 22.12) / 2)


def test_operations_that_a_profile_does_not_show_are_left_out():
    [row] = make_rows(JOB, [answer(launch(1, [(11, 10)], [1]))])
    assert row.outside_operations is None and row.inside_operations is None
    assert row.lower_quartile_milliseconds == row.overhead_milliseconds == 1


def test_each_round_is_a_process_and_the_first_failure_the_last(config):
    asked, said = [], []

    def start(script, job):
        asked.append((script, job["batch_size"], job["image_size"], job["xla"]))
        return ANSWERS[0] if len(asked) == 1 else {"error": "no more memory"}

    outcome = run(config, said.append, start)
    assert asked == [("overhead/trial.py", 1, 8, "auto")] * 2
    assert [row.steps_per_launch for row in outcome.rows] == [1, 40]
    assert {row.error for row in outcome.rows} == {"no more memory"}
    assert "empty 1.45 ms at 1, 0.10 ms at 40 steps a launch" in said[0]
    assert said[1].endswith("round 2 of 2: no more memory")
    failed = run(config, said.append, lambda *_: {"error": "no more memory"})
    [row] = failed.rows
    assert row.overhead_milliseconds is None and row.error == "no more memory"
    assert "failed: no more memory" in output.text(failed, config)


def test_the_table_has_a_line_for_each_number_of_steps(config):
    outcome = run(config, lambda line: None, _in_turn(ANSWERS))
    text = output.text(outcome, config)
    assert all(len(line) <= output.WIDTH for line in text.splitlines())
    assert "resnet8 float32, XLA off, batches of 1 image of 8 x 8 pixels; 3 pairs in 2" in text
    [first, second] = [line.split() for line in text.splitlines() if "  keras_preact " in line]
    figures = "1 2.00 ms 1.50 2.50 1.50 ms 13.00 ms 10.00 ms 28.0 304.0"
    assert " ".join(first[1:]) == figures
    assert second[1:3] == ["chosen:", "45"]


def _in_turn(answers):
    answers = iter(answers)
    return lambda script, job: next(answers)


def test_the_csv_has_a_column_for_each_field_and_may_be_replaced(config, capsys):
    outcome = run(config, lambda line: None, _in_turn(ANSWERS))
    output.hand_over(outcome, config)
    assert "Written: " in capsys.readouterr().out
    written = config.csv_path.read_bytes()
    assert written == csv_bytes(outcome.rows, OverheadRow)
    first, _ = csv.DictReader(io.StringIO(written.decode()))
    assert first["overhead_milliseconds"] == "2.0"
    output.check(config)
