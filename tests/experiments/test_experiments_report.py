"""The report of an experiment: of real runs on digits, and of folders made by hand."""

import csv
import html
import io
import json
import re
import time

import numpy as np
import pytest
import synthetic_runs
from etils import epath
from matplotlib.figure import Figure

from keras_preact.experiments import experiment as experiments
from keras_preact.experiments import report, report_pictures, results
from keras_preact.experiments.budgets import Budget, budget
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.paper import TABLES
from keras_preact.experiments.results import Ending
from keras_preact.experiments.table import Published, Row, Table
from keras_preact.support.plotting import as_png, figure
from keras_preact.training import run as train
from keras_preact.training.distribution.compute_plan import ComputePlan

FLAGS = {"recipe": "digits_resnet20", "depth": 8, "global_batch_size": 128, "warmup_steps": 2}
HOSTILE = (
    'a|b <script>alert("x")</script> $\\frac{1}$ `tick` [link](http://x.y) \x1b[31m\u202e =1+1'
)


def of(table, folder, name="short", seeds=(0, 1, 2), **given):
    return Experiment(table, budget(name), tuple(seeds), epath.Path(folder), given)


def small_table():
    rows = [
        Row(unit, label, "digits, ResNet-8", {**FLAGS, "unit": unit}, Published(error, "Table 9"))
        for unit, label, error in (
            ("original", "original units", 6.61),
            ("full_preactivation", "full pre-activation", 6.37),
        )
    ]
    return Table("small", "Small nets", "A paper", tuple(rows), setting="median of five runs")


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """An experiment of two rows, each trained once for 40 steps."""
    short = Budget("early", 1, 40, "the first 40 steps")
    folder = epath.Path(tmp_path_factory.mktemp("trained"))
    given = {"log_propagation_steps": 20, "eval_epochs": 1000}
    made = Experiment(small_table(), short, (0,), folder, given)
    experiments.write(made)
    for trial in made.trials():
        train(made.config(trial))
    report.write(made)
    return made


@pytest.fixture
def without_pictures(monkeypatch):
    """Makes matplotlib write one grey pixel: drawing takes most of a report's time."""
    png = as_png(lambda: figure(figsize=(0.1, 0.1)), dpi=10)()
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **options: file.write(png))
    monkeypatch.setattr(report_pictures, "_remembered", {})


def written(experiment, name="report.md"):
    return (experiment.report_folder / name).read_text()


def lines(experiment, name="results.csv"):
    return list(csv.DictReader(io.StringIO(written(experiment, name))))


def page_text(experiment):
    """The text of the page as a reader sees it."""
    body = re.sub(r"<style>.*?</style>", "", written(experiment, "index.html"), flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]+>", " ", body))


def test_real_runs_appear_with_their_errors_curves_records_and_environment(trained):
    for trial, line in zip(trained.trials(), lines(trained), strict=True):
        [row] = csv.DictReader((trained.run_dir(trial) / "metrics.csv").open())
        assert (line["row"], line["state"], line["steps"]) == (trial.row.name, "finished", "40")
        error = 100 * (1 - float(row["eval_accuracy"]))
        assert float(line["test_error_percent"]) == pytest.approx(error, abs=1e-4)
        assert f"| {error:.2f} |" in written(trained)
    assert lines(trained)[0]["test_images"] == "360"
    text = written(trained)
    for name in ("errors-1", "curves-1", "rows-1", "gradients-1"):
        assert f"(figures/{name}.png)" in text
        assert (trained.report_folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert "tensorflow 2" in text and "CPU:0" in text and "float32" in text
    assert "Row: original units" in page_text(trained)
    assert "Truncation" not in text


def test_a_run_with_one_evaluation_has_the_training_curve_of_its_log_steps(trained):
    points = lines(trained, "curves.csv")
    own = [line for line in points if line["row"] == "original" and line["split"] == "training"]
    assert [int(line["step"]) for line in own] == [10, 20, 30, 40]
    events = [float(line["error_percent"]) for line in own]
    assert all(0 < error < 100 for error in events) and events[-1] < events[0]
    assert "from TensorBoard's scalars" in written(trained)


def test_the_page_is_whole_without_scripts_and_requests(trained):
    page = written(trained, "index.html")
    assert "<script" not in page and "http" not in re.sub(r"http-equiv|1998/Math", "", page)
    assert page.count("<img ") >= 6 and 'src="figures' not in page


def test_the_budget_is_said_before_all_figures_and_in_the_tables_header(trained):
    text = written(trained)
    budget_place = text.index("the first 40 steps")
    assert budget_place < text.index("another length of training") < text.index("| 6.61 |")
    assert "| published (1.2k steps) | measured (early: 40 steps): median |" in text
    assert "| published (1.2k steps) | measured (early: 40 steps): medians |" in text


def test_other_files_in_the_folder_stay_and_the_record_is_read_again(trained):
    notes = trained.report_folder / "notes.txt"
    notes.write_text("mine")
    again = experiments.read(trained.folder, trained.report_folder)
    before = written(trained)
    summary = report.write(again)
    assert notes.read_text() == "mine" and written(trained) == before
    assert "original units" in summary and str(trained.report_folder) in summary
    assert not list(trained.report_folder.glob(".*")), "temporary files"


@pytest.mark.usefixtures("without_pictures")
def test_a_folder_without_a_run_has_a_report(tmp_path):
    empty = of(TABLES["table3"], tmp_path, "paper", range(5))
    summary = report.write(empty)
    assert "65 planned: 65 missing" in written(empty)
    assert "No run has been evaluated yet." in written(empty)
    assert "0 are reversed" in summary and "undecided" in summary
    assert {line["state"] for line in lines(empty)} == {"missing"}
    # The commands to begin with.
    assert written(empty).count("keras-preact train --") == 65


@pytest.fixture
def half(tmp_path):
    """Two rows of three runs each, most of which are in trouble."""
    made = of(small_table(), tmp_path)
    original, full = made.table.rows
    synthetic_runs.run(made, Trial(original, 0), 0.08)
    synthetic_runs.run(made, Trial(original, 1), 0.1, part=0.5)
    synthetic_runs.run(made, Trial(full, 0), 0.07)
    synthetic_runs.run(made, Trial(full, 1), 0.07, part=0.3)
    ending = Ending("diverged", 3, "The loss of step 1,501 is not finite: nan")
    results.write_ending(made.run_dir(Trial(full, 1)), ending)
    results.write_ending(made.run_dir(Trial(full, 2)), Ending("failed", -9, "Killed"))
    return made


@pytest.mark.usefixtures("without_pictures")
def test_a_half_finished_folder_tells_the_state_of_each_run(half):
    report.write(half)
    text = written(half)
    assert (
        "| original units | 6.61 | 8.00 | 8.00 | 3.10 | 1 of 3 (1 missing, 1 unfinished) |" in text
    )
    assert (
        "| full pre-activation | 6.37 | diverged | 7.00 | 2.10 | 1 of 3 (1 failed, 1 diverged) |"
        in text
    )
    assert "| original units | 1 | unfinished | 2,500 of 5,000 |" in text
    assert "not finite: nan" in text and "Killed" in text
    states = [line["state"] for line in lines(half)]
    assert states == ["finished", "unfinished", "missing", "finished", "diverged", "failed"]


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("metrics.csv", "step,epoch\n1,oops,\n"),
        ("metrics.csv", "\0" * 200),
        ("config.json", '{"config": '),
        ("config.json", "[]"),
        ("config.json", '{"config": {}, "dataset": {}, "versions": 7, "history": {"a": 1}}'),
        ("propagation.csv", "step,unit\n"),
        ("tensorboard", "a file in its place"),
    ],
)
def test_damage_is_named_and_the_rest_reported(half, name, damage):
    path = half.run_dir(Trial(half.table.rows[1], 0)) / name
    path.write_text(damage)
    report.write(half)
    text = written(half)
    assert "| original units | 6.61 | 8.00 |" in text
    if name != "tensorboard":
        assert str(path) in text.replace("\\", "")
    if name in ("metrics.csv", "config.json"):
        assert "1 damaged" in text
    else:
        assert "| full pre-activation | 0 | finished |" in text


@pytest.mark.usefixtures("without_pictures")
def test_a_damaged_test_result_is_named(tmp_path):
    made = of(small_table(), tmp_path, seeds=(0,), validation_images=100)
    folder = synthetic_runs.run(made, Trial(made.table.rows[0], 0), 0.1, test_count=10_000)
    shared = {"step": 5000, "end_step": 5000, "checkpoint": "newest", "images": 10_000, "line": ""}
    folder.test.write_text(json.dumps({**shared, "scores": {"loss": 1}}))
    report.write(made)
    assert "scores.accuracy must be" in written(made)
    folder.test.write_text(json.dumps({**shared, "scores": {"accuracy": 0.9123}}))
    report.write(made)
    assert "| 8.77 |" in written(made)
    assert "5,000 images were held out of training for validation" in written(made)
    assert "validation_images = 100 in place of none" in written(made)


@pytest.mark.usefixtures("without_pictures")
def test_damaged_events_of_tensorboard_are_named(half):
    folder = synthetic_runs.run(half, Trial(half.table.rows[0], 2), 0.1, evaluations=1)
    synthetic_runs.write_scalars(folder, {10: 0.9, 20: 0.8})
    [events] = (folder.tensorboard / "train").iterdir()
    data = events.read_bytes()
    # A machine that writes right now: the last event is there in part.
    events.write_bytes(data[:-5])
    report.write(half)
    steps = [
        line["step"]
        for line in lines(half, "curves.csv")
        if (line["row"], line["seed"], line["split"]) == ("original", "2", "training")
    ]
    assert steps == ["10"]
    events.write_bytes(data[:20] + bytes(len(data)))
    report.write(half)


def test_labels_of_strangers_are_only_text(tmp_path):
    rows = (
        Row("one", HOSTILE, "", {**FLAGS, "unit": "original"}, Published(5, HOSTILE, note=HOSTILE)),
        Row("two", HOSTILE, "", dict(FLAGS), Published(6, HOSTILE)),
    )
    made = of(Table("mine", HOSTILE, HOSTILE, rows), tmp_path, seeds=(0,))
    for trial in made.trials():
        synthetic_runs.run(made, trial, 0.1)
    summary = report.write(made)
    for text in (summary, *map(lambda name: written(made, name), ("index.html", "report.md"))):
        assert "\x1b" not in text and "\u202e" not in text
    page = written(made, "index.html")
    assert "<script" not in page and "&lt;script&gt;" in page
    # Each cell of the table of errors is still one.
    [line] = [x for x in written(made).splitlines() if "10.00" in x and x.startswith("| a")][:1]
    assert len(re.findall(r"(?<!\\)\|", line)) == 8
    assert "[link](" not in written(made)


@pytest.mark.usefixtures("without_pictures")
def test_a_table_of_ones_own_has_no_published_column_and_no_publication(tmp_path):
    rows = tuple(Row(f"row{n}", f"row {n}", "", {**FLAGS, "depth": 8 + 6 * n}) for n in range(3))
    made = of(Table("mine", "Mine", "", rows, seeds=(3,)), tmp_path, "paper", (3,))
    synthetic_runs.run(made, Trial(rows[0], 3), 0.1)
    report.write(made)
    text = written(made)
    assert (
        "|  | measured (full recipe): median | mean \N{PLUS-MINUS SIGN} std | training error | runs"
        in text
    )
    assert "| published" not in text and "Publication" not in text
    assert "There are no two rows that the table ranks." in text
    assert "keras-preact experiments --budget=paper --table=mine.toml --output_dir=" in text


@pytest.mark.usefixtures("without_pictures")
def test_a_measured_failure_is_called_so_under_the_full_recipe_alone(tmp_path):
    table = synthetic_runs.of_rows(TABLES["table1"], ["identity", "dropout"])
    for name, remark in (("paper", "30.00 (fails)"), ("short", "30.00 |")):
        made = of(table, tmp_path, name, (0,))
        synthetic_runs.run(made, Trial(table.row("dropout"), 0), 0.3)
        report.write(made)
        assert f"| dropout 0.5 | fail | {remark}" in written(made)


@pytest.mark.usefixtures("without_pictures")
def test_flags_of_the_user_stand_in_the_header_and_in_a_sentence(tmp_path):
    made = of(
        synthetic_runs.of_rows(TABLES["table2"], ["resnet110_original"]),
        tmp_path,
        seeds=(0,),
        depth=20,
    )
    report.write(made)
    text = written(made)
    assert "measured (short: 5,000 steps scaled, depth=20): median" in text
    assert "All rows differ from their own recipes: depth = 20 in place of 110." in text
    assert "experiments table2 --budget=short --steps=5000" in text
    assert "--train_flags=--depth=20" in text


@pytest.mark.usefixtures("without_pictures")
def test_another_data_set_is_said_first_of_all(tmp_path):
    made = of(synthetic_runs.of_rows(TABLES["table1"], ["identity"]), tmp_path, "smoke", (0,))
    report.write(made)
    assert "The images are those of digits, not of cifar10" in written(made)
    assert "measured (smoke: 3 steps, dataset=digits)" in written(made)


@pytest.mark.usefixtures("without_pictures")
def test_two_machines_are_two_environments(half):
    gpu = ComputePlan("mirrored", ("GPU:0", "GPU:1"), 1, "float32", True, {})
    synthetic_runs.run(half, Trial(half.table.rows[0], 2), 0.09, plan=gpu)
    report.write(half)
    assert "| 1 | GPU:0, GPU:1, mirrored, XLA | float32 |" in written(half)
    assert "| 4 | CPU:0 | mixed_bfloat16 |" in written(half)


@pytest.mark.usefixtures("without_pictures")
def test_top_five_errors_of_imagenet_stand_beside_top_one(tmp_path):
    table = synthetic_runs.of_rows(TABLES["table5"], ["resnet152_original"])
    made = of(table, tmp_path, "paper", (0, 1))
    synthetic_runs.run(made, Trial(table.rows[0], 0), 0.22)
    report.write(made)
    text = written(made)
    assert "published (90 epochs)" in text and "top-1 / top-5" in text
    # An error above 20 % is no failure on this data set.
    assert "| 21.3 / 5.5 | 22.00 / 1.00 | 22.00 / 1.00 | 17.10 | 1 of 2 (1 missing) |" in text
    assert "measured on one 320x320 crop" in text


@pytest.mark.slow
def test_sixteen_rows_of_five_seeds_take_seconds(tmp_path):
    made = of(TABLES["table1"], tmp_path, "paper", range(5))
    random = np.random.default_rng(0)
    for trial in made.trials():
        own = trial.row.published.error_percent or 40
        synthetic_runs.run(made, trial, own / 100 + random.normal(0, 0.002))
    begin = time.process_time()
    summary = report.write(made)
    assert time.process_time() - begin < 60
    assert "of 16 rows is" in summary
    begin = time.process_time()
    report.write(made)
    assert time.process_time() - begin < 10
    assert (made.report_folder / "index.html").stat().length < 20e6


@pytest.mark.usefixtures("without_pictures")
def test_between_runs_the_report_is_written_a_tenth_of_the_time_at_most(half):
    now = [0.0]

    def clock():
        # Writing takes from one look at the clock to the next.
        now[0] += 1
        return now[0]

    page = half.report_folder / "index.html"
    write = report.sparing(half, clock)
    write()
    page.unlink()
    times = 0
    while not page.exists():
        write()
        times += 1
    assert 9 <= times <= 20


def test_a_report_that_cannot_be_written_stops_no_run(half):
    half.folder.joinpath("reports").write_text("in the way")
    report.sparing(half)()
    with pytest.raises(OSError):
        report.write(half)


UNIT = """
import keras


def unit(**options):
    return keras.layers.Identity()
"""


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("after", [None, "raise ImportError('no')", UNIT + "# changed"])
def test_a_unit_whose_file_is_gone_or_changed_stays_in_the_report(tmp_path, after):
    file = tmp_path / "my_units.py"
    file.write_text(UNIT)
    rows = (Row("mine", "my unit", "", {**FLAGS, "unit": f"{file}:unit"}), small_table().rows[0])
    made = of(Table("mine", "Mine", "", rows), tmp_path / "out", seeds=(0,))
    synthetic_runs.run(made, Trial(rows[0], 0), 0.1)
    made = experiments.write(made)
    file.unlink()
    if after:
        file.write_text(after)
    report.write(experiments.read(made.folder, made.report_folder))
    assert "| my unit | 10.00 | 10.00 |" in written(made)
