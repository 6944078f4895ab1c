"""Experiments: their runs' folders, and the record from which they are read again."""

import dataclasses
import json

import pytest
from etils import epath

from keras_preact.experiments import experiment as experiments
from keras_preact.experiments.budgets import BUDGETS, budget
from keras_preact.experiments.experiment import Experiment, Trial
from keras_preact.experiments.paper import TABLES


def make(tmp_path, name="table2", length="short", steps=None, seeds=(0, 1), given=None):
    folder = epath.Path(tmp_path / "experiments")
    return Experiment(TABLES[name], budget(length, steps), seeds, folder, given or {})


def config(experiment, row, seed=0):
    return experiment.config(Trial(experiment.table.row(row), seed))


def test_paper_is_the_full_recipe_with_five_seeds():
    assert BUDGETS["paper"].seeds == 5
    with pytest.raises(ValueError, match="paper is the full recipe"):
        budget("paper", 100)


def test_short_scales_the_schedule_to_its_steps(tmp_path):
    found = config(make(tmp_path, steps=640), "resnet110_original")
    assert (found.train_steps, found.scale_schedule, found.drop_steps) == (
        *(640, True, (32_000, 48_000)),
    )


def test_early_is_the_beginning_of_the_full_recipe_at_the_real_depth(tmp_path):
    found = config(make(tmp_path, length="early"), "resnet164_original")
    assert (found.depth, found.train_steps, found.scale_schedule) == (164, 300, False)
    assert (found.warmup_steps, found.warmup_learning_rate) == (400, 0.01)


@pytest.mark.parametrize("name", TABLES)
def test_smoke_runs_the_rows_own_net_on_the_embedded_digits(tmp_path, name):
    experiment = make(tmp_path, name, "smoke")
    for row in experiment.table.rows:
        found = config(experiment, row.name)
        assert (found.dataset, found.train_steps) == ("digits", 3)
        assert found.depth == row.config().depth
        assert found.architecture().keys() == row.config().architecture().keys()
        # A recipe in epochs has no second length.
        assert found.train_epochs is None


def test_users_flags_replace_those_of_rows_and_budget(tmp_path):
    found = config(make(tmp_path, given={"depth": 56, "train_epochs": 2}), "resnet110_original")
    assert (found.depth, found.train_epochs, found.train_steps) == (56, 2, None)


def test_tables_that_share_a_row_share_its_runs(tmp_path):
    first, second = make(tmp_path, "table1"), make(tmp_path, "table2")
    identity, original = first.table.row("identity"), second.table.row("resnet110_original")
    assert first.run_dir(Trial(identity, 1)) == second.run_dir(Trial(original, 1))
    assert first.run_dir(Trial(identity, 0)) != first.run_dir(Trial(identity, 1))


def test_rows_of_other_nets_budgets_and_flags_have_other_folders(tmp_path):
    folders = {
        made.row_folder(row)
        for made in (
            make(tmp_path, "table1"),
            make(tmp_path, "table1", "early"),
            make(tmp_path, "table1", "paper"),
            make(tmp_path, "table1", steps=400),
            make(tmp_path, "table1", given={"depth": 56}),
        )
        for row in made.table.rows
    }
    assert len(folders) == 5 * 16


def test_flags_that_change_nothing_learned_leave_the_folder_as_it_is(tmp_path):
    given = {"data_dir": "/data", "precision": "float32", "eval_epochs": 4, "xla": "on"}
    one, other = make(tmp_path), make(tmp_path, given=given)
    row = one.table.rows[0]
    assert one.row_folder(row) == other.row_folder(row)
    assert one.name == other.name


def test_reports_of_other_flags_lie_beside_each_other(tmp_path):
    names = {
        make(tmp_path).name,
        make(tmp_path, steps=400).name,
        make(tmp_path, length="early").name,
        make(tmp_path, given={"depth": 56}).name,
        make(tmp_path, given={"dataset": "cifar100"}).name,
    }
    assert len(names) == 5
    assert make(tmp_path, given={"depth": 56}).name == "table2-short-5000-depth-56"


@pytest.mark.parametrize("name", TABLES)
def test_a_record_is_read_as_it_was_written(tmp_path, name):
    made = make(tmp_path, name, given={"data_dir": "/data", "drop_steps": (3, 4)})
    written = experiments.write(made)
    read = experiments.read(made.folder, made.report_folder)
    assert dataclasses.replace(read, row_folders={}) == written
    for row in made.table.rows:
        assert read.row_folder(row) == made.row_folder(row)


def test_seeds_of_later_calls_join_the_record(tmp_path):
    experiments.write(make(tmp_path, seeds=(0, 2)))
    assert experiments.write(make(tmp_path, seeds=(1,))).seeds == (0, 1, 2)


def test_a_record_of_other_rows_is_not_overwritten(tmp_path):
    made = make(tmp_path)
    experiments.write(made)
    other = dataclasses.replace(made.table, rows=made.table.rows[:3])
    with pytest.raises(ValueError, match="the record of other rows"):
        experiments.write(dataclasses.replace(made, table=other))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.pop("seeds"), "seeds must be given"),
        (lambda record: record["budget"].update(steps="x"), "budget.steps"),
        (lambda record: record["table"]["rows"][0].update(name=3), r"table.rows\[0\].name"),
        (lambda record: record["table"].update(rows={}), "table.rows must be a list"),
        (lambda record: record["given"].update(depht=3), "depht"),
        (lambda record: record["row_folders"].update(a="../.."), "1 to 80 letters"),
    ],
)
def test_a_damaged_record_is_named_with_its_field(tmp_path, change, words):
    made = make(tmp_path)
    experiments.write(made)
    path = made.report_folder / experiments.RECORD
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=words) as error:
        experiments.read(made.folder, made.report_folder)
    assert str(error.value).startswith(f"{path} is not the record of an experiment")
