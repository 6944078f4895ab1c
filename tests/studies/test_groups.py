"""Runs of one configuration, told apart from others."""

import dataclasses

import numpy as np
import pytest

from keras_preact.data import DatasetInfo
from keras_preact.studies import compare, groups
from keras_preact.studies.groups import Run
from keras_preact.training import TrainConfig
from keras_preact.training.reporting.metrics_file import Row

INFO = DatasetInfo("digits", ("0", "1"), (8, 8, 1), 100, 20, (1.0,), (1.0,), 1.0)
CONFIG = TrainConfig(dataset="digits", depth=20)
FIELDS = {field.name: None for field in dataclasses.fields(Row)}


def rows(steps, accuracy=0.5):
    given = {"train_accuracy": accuracy + 0.1, "eval_accuracy": accuracy, "images_per_second": 1.0}
    return [Row(**{**FIELDS, **given, "step": step}) for step in steps]


def a_run(folder, seed=0, steps=(10, 20), accuracy=0.5, info=INFO, **changes):
    config = CONFIG.updated(seed=seed, run_dir=folder, **changes)
    return Run(folder, config, info, rows(steps, accuracy))


def folders(found):
    return [[run.folder for run in group.runs] for group in found]


def test_runs_that_differ_in_their_seeds_alone_are_one_group():
    runs = [a_run("a", 0), a_run("b", 1, unit="original"), a_run("c", 2), a_run("d", 5)]
    found = groups.of_runs(runs)
    assert folders(found) == [["a", "c", "d"], ["b"]]
    assert [group.label for group in found] == [
        "ResNet-20, full_preactivation, identity",
        "ResNet-20, original, identity",
    ]
    assert [group.short_label for group in found] == ["full_preactivation", "original"]


@pytest.mark.parametrize(
    "changes",
    [{"precision": "mixed_bfloat16"}, {"log_steps": 3}, {"data_dir": "elsewhere"}],
    ids=str,
)
def test_what_does_not_change_what_is_learned_does_not_part_runs(changes):
    [group] = groups.of_runs([a_run("a", 0), a_run("b", 1, **changes)])
    assert len(group.runs) == 2


def test_runs_of_one_seed_are_no_draws_of_one_configuration():
    found = groups.of_runs([a_run("a", 0), a_run("b", 0), a_run("c", 1), a_run("d", 1)])
    assert folders(found) == [["a", "c"], ["b", "d"]]
    assert [group.label for group in found] == [
        "ResNet-20, full_preactivation, identity (a)",
        "ResNet-20, full_preactivation, identity (b)",
    ]


def test_runs_on_other_images_are_another_configuration():
    other = dataclasses.replace(INFO, train_count=90)
    assert len(groups.of_runs([a_run("a", 0), a_run("b", 1, info=other)])) == 2


def test_a_name_tells_the_fields_in_which_configurations_differ():
    found = groups.of_runs(
        [
            a_run("a", learning_rate=0.1),
            a_run("b", learning_rate=0.05),
            a_run("c", unit="original", learning_rate=0.05),
        ]
    )
    assert [group.label for group in found] == [
        "ResNet-20, full_preactivation, identity, learning_rate 0.1",
        "ResNet-20, full_preactivation, identity, learning_rate 0.05",
        "ResNet-20, original, identity",
    ]
    assert found[0].short_label == "full_preactivation, learning_rate 0.1"


def test_only_evaluations_that_all_runs_share_count():
    runs = [a_run("a", 0, (10, 20, 30, 40)), a_run("b", 1, (20, 40, 50)), a_run("c", 2, (20, 40))]
    [group] = groups.of_runs(runs)
    assert list(group.steps) == [20, 40] and group.left_out == 3
    [curves] = compare.curves_of([group])
    np.testing.assert_array_equal(curves.steps, [20, 40])
    assert curves.eval_error.shape == (3, 2) and curves.left_out == 3


def test_runs_without_a_common_evaluation_are_apart():
    found = groups.of_runs([a_run("a", 0, (10, 20)), a_run("b", 1, (15, 30)), a_run("c", 2, (20,))])
    assert folders(found) == [["a", "c"], ["b"]]


def test_curves_are_errors_of_every_run():
    [group] = groups.of_runs([a_run("a", 0, accuracy=0.5), a_run("b", 1, accuracy=0.25)])
    [curves] = compare.curves_of([group])
    np.testing.assert_allclose(curves.eval_error, [[0.5, 0.5], [0.75, 0.75]])
    np.testing.assert_allclose(curves.train_error, [[0.4, 0.4], [0.65, 0.65]])
    assert (curves.label, curves.depth, curves.runs) == (group.short_label, 20, 2)


def test_curves_of_several_depths_are_of_one_kind():
    runs = [a_run("a", depth=20), a_run("b", depth=56), a_run("c", depth=20, shortcut="none")]
    kinds = [curves.kind for curves in compare.curves_of(groups.of_runs(runs))]
    assert kinds[0] == kinds[1] != kinds[2]
