import dataclasses
import json
import re

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.data.splitting import Division
from keras_preact.training import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan
from keras_preact.training.run_folder import RunFolder, check_same_data, configure

PLAN = ComputePlan("one_device", ("CPU:0",), 1, "float32", False, {"strategy": "as given"})
INFO = DatasetInfo("digits", ("a", "b"), (8, 8, 1), 10, 5, (1.0,), (2.0,), 1.0)


def config(folder, **changes):
    values = {"dataset": "digits", "depth": 8, "run_dir": str(folder), "train_steps": 5}
    return TrainConfig(**{**values, **changes})


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(config(folder), INFO, PLAN)
    return folder


def test_a_run_is_read_back_as_it_was_begun(run):
    assert run.read() == (config(run).resolved(), INFO)
    assert run.labels.read_text() == "a\nb\n"
    record = json.loads(run.config.read_text())
    assert record["decision"]["precision"] == "float32"
    assert record["decision"]["reasons"] == {"strategy": "as given"}
    assert record["versions"]["tensorflow"] == tf.__version__
    assert {"keras_preact", "keras", "numpy", "python", "scikit-learn"} < set(record["versions"])


def test_every_call_leaves_its_step_command_and_changes(run, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--resume"])
    changes = {"train_steps": 9, "devices": "2", "data_dir": "/elsewhere", "drop_steps": (5,)}
    run.begin(config(run, **changes, resume=True), INFO, PLAN, step=5)
    moved = RunFolder(run.path.rename(run.path.parent / "moved"))
    moved.begin(config(moved, **{**changes, "on_nan": "rollback"}), INFO, PLAN, step=9)
    first, second, third = json.loads(moved.config.read_text())["history"]
    assert (first["step"], first["changes"]) == (0, {})
    assert second == {
        "step": 5,
        "command": ["train.py", "--resume"],
        "changes": {
            "train_steps": [5, 9],
            "devices": [None, "2"],
            "data_dir": [None, "/elsewhere"],
            "drop_steps": [None, [5]],
        },
    }
    # The place of the folder and the wishes of a single call are no part of the run.
    assert (third["step"], third["changes"]) == (9, {"on_nan": ["stop", "rollback"]})


def test_another_runs_folder_is_refused_unless_resumed_or_overwritten(run):
    with pytest.raises(ValueError, match=r"holds a run already.*--resume.*--overwrite"):
        run.check_free(config(run))
    run.check_free(config(run, resume=True))
    run.check_free(config(run, overwrite=True))


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_folder_of_something_else_is_refused_whatever_is_asked(tmp_path, options):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else"):
        RunFolder(tmp_path).check_free(config(tmp_path, **options))


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="must be a folder"):
        RunFolder(tmp_path / "file").check_free(config(tmp_path / "file"))


def test_new_and_empty_folders_are_free(tmp_path):
    RunFolder(tmp_path).check_free(config(tmp_path))
    RunFolder(tmp_path / "new").check_free(config(tmp_path / "new"))


def test_setting_aside_moves_the_files_of_a_run_alone_and_forgetting_deletes_them(run):
    (run.path / "notes.txt").write_text("mine")
    run.checkpoints.mkdir()
    run.propagation.write_text("")
    run.set_aside()
    visible = [path.name for path in run.path.iterdir() if not path.name.startswith(".")]
    assert visible == ["notes.txt"]
    [aside] = [path for path in run.path.iterdir() if path.name.startswith(".")]
    kept = sorted(path.name for path in aside.iterdir())
    assert kept == ["checkpoints", "config.json", "labels.txt", "propagation.csv"]
    run.begin(config(run, depth=20), INFO, PLAN)
    run.set_aside()  # the run of depth 20 never saved, so the first one is kept
    assert '"depth": 8' in (aside / "config.json").read_text()
    assert not run.config.exists()
    run.forget_aside()
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


def test_a_divided_data_set_is_recorded_once_and_compared_when_a_run_goes_on(run):
    division = Division(["a.jpg", "b.jpg", "c.jpg"], np.array([0, 1, 2]), ["x", "x", "y"])
    run.check_same_division(division)
    run.keep_division(None)
    assert not run.split.exists()
    run.keep_division(division)
    assert run.split.read_text() == ("path,split,label\na.jpg,train,x\nb.jpg,val,x\nc.jpg,test,y\n")
    run.check_same_division(division)
    other = Division(["a.jpg", "b.jpg", "d.jpg"], np.array([0, 0, 0]), ["x", "x", "y"])
    run.keep_division(other)
    with pytest.raises(ValueError, match=r"in the splits of .*split\.csv") as error:
        run.check_same_division(other)
    assert str(error.value).splitlines()[1:] == [
        "  path   in the run  now   ".rstrip(),
        "  b.jpg  val         train",
        "  c.jpg  test        absent",
        "  d.jpg  absent      train",
    ]
    with pytest.raises(ValueError, match="Put them back, or begin another run"):
        run.check_same_division(None)
    run.set_aside()
    assert not run.split.exists()


def test_records_of_earlier_versions_count_as_the_same_data_whatever_is_for_test():
    check_same_data(dataclasses.replace(INFO, test_count=7), INFO, trained_on=True)
    with pytest.raises(ValueError, match="test_count  7           0"):
        check_same_data(INFO, dataclasses.replace(INFO, test_count=7), trained_on=True)


def test_leftovers_of_a_killed_process_do_not_lock_a_folder(tmp_path):
    (tmp_path / ".config.json.tmp").write_text("{")
    RunFolder(tmp_path).check_free(config(tmp_path))


def test_resuming_with_another_network_or_schedule_is_refused_with_a_table_of_both_values(run):
    given = {"depth": 20, "learning_rate": 0.5, "shortcut_arguments": "initial_bias=-3"}
    with pytest.raises(ValueError) as error:
        run.check_free(config(run, resume=True, shortcut="exclusive_gating", **given))
    first, *table, last = str(error.value).splitlines()
    assert first.startswith(f"{run} is a run of another configuration")
    assert table == [
        "  flag                in the run  now",
        "  depth               8           20",
        "  shortcut            identity    exclusive_gating",
        "  shortcut_arguments              initial_bias=-3",
        "  learning_rate       0.1         0.5",
    ]
    assert last == "Leave them out, or give another --run_dir."


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "mixed_bfloat16", "xla": "on", "steps_per_loop": 10},
        {"strategy": "mirrored", "devices": "2", "cluster_timeout_seconds": 5},
        {"profile_steps": (2, 3), "deterministic": True, "data_dir": "/elsewhere"},
        {"max_runtime_minutes": 5.0, "on_nan": "rollback", "max_rollbacks": 9},
        {"remat": "group", "remat_units": 4},
        {"log_propagation_steps": 100},
        {"log_steps": 7, "eval_epochs": 2, "checkpoint_steps": 3, "keep_checkpoints": 8},
    ],
)
def test_a_run_may_be_resumed_on_other_machines(run, changes):
    run.check_free(config(run, resume=True, **changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sync_bn", True), ("gradient_accumulation_steps", 2), ("mixup_alpha", 0.2)),
        *(("stochastic_depth_rate", 0.5), ("label_smoothing", 0.1), ("ema_decay", 0.9)),
        *(("recompute_bn_batches", 3), ("global_batch_size", 64), ("seed", 1)),
    ],
)
def test_a_run_may_not_be_resumed_with_what_changes_its_result(run, name, value):
    with pytest.raises(ValueError, match=rf"\n  {name} .* {value}\n"):
        run.check_free(config(run, resume=True, **{name: value}))


def test_a_longer_run_may_be_resumed_but_not_where_its_schedule_was_scaled(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(config(run), INFO, PLAN)
    run.check_free(config(run, resume=True, train_steps=9))
    run.begin(config(run, scale_schedule=True), INFO, PLAN)
    with pytest.raises(ValueError, match=r"\n  train_steps +5 +9\n"):
        run.check_free(config(run, resume=True, train_steps=9, scale_schedule=True))


def test_a_run_whose_rate_follows_its_length_may_not_become_longer(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(config(run, schedule="cosine", warmup_steps=0), INFO, PLAN)
    longer = {"resume": True, "schedule": "cosine", "warmup_steps": 0, "train_steps": 9}
    with pytest.raises(ValueError, match=r"\n  train_steps +5 +9\n"):
        run.check_free(config(run, **longer))
    run.begin(config(run, schedule="cosine", warmup_steps=0, schedule_steps=20), INFO, PLAN)
    run.check_free(config(run, schedule_steps=20, **longer))


def test_a_run_of_an_earlier_version_goes_on(run):
    """Its record has numbers where nothing was given, and no field of later versions."""
    record = json.loads(run.config.read_text())
    earlier = {
        **{"learning_rate": 0.1, "weight_decay": 1e-4, "decay_bn": True},
        **{"warmup_steps": 400, "warmup_learning_rate": 0.01},
    }
    assert {name: record["config"][name] for name in earlier} == earlier
    later = ("optimizer", "nesterov", "momentum_form", "beta1", "beta2", "epsilon", "clip_norm")
    for name in (*later, "warmup", "warmup_epochs", "schedule", "final_learning_rate"):
        del record["config"][name]
    run.config.write_text(json.dumps(record))
    run.check_free(config(run, resume=True))
    with pytest.raises(ValueError, match=r"\n  optimizer +sgd +adamw\n  learning_rate +0.1 +0.001"):
        run.check_free(config(run, resume=True, optimizer="adamw"))


def test_a_resumed_run_takes_its_flags_from_its_folder(run):
    given = {"run_dir": str(run), "resume": True, "train_epochs": 3.0}
    expected = config(run, resume=True, train_steps=None, train_epochs=3.0)
    assert configure(given) == expected.resolved()


def test_resume_starts_anew_where_there_is_no_run_yet(tmp_path):
    given = {"run_dir": str(tmp_path / "new"), "resume": True, "dataset": "digits", "depth": 20}
    assert configure(given) == TrainConfig(**given)


def test_evaluating_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match="run_dir must be given"):
        configure({"mode": "evaluate"})
    with pytest.raises(ValueError, match=r"no .*nowhere/config\.json"):
        configure({"mode": "evaluate", "run_dir": str(tmp_path / "nowhere")})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"config": {}}',
        '{"config": {}, "dataset": null}',
        '{"config": 1, "dataset": {}}',
    ],
)
def test_a_damaged_record_is_named(run, text):
    run.config.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not the record of a run"):
        run.read()


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"class_names": ("a", "c")}, [False, True]),
        ({"image_shape": (9, 8, 1)}, [False, True]),
        ({"train_count": 11}, [True]),
        ({"eval_count": 6}, [True]),
        ({"mean": (1.002,)}, [True]),
        ({"std": (2.1,)}, [True]),
        # Another version of a decoder may round otherwise, and data sets have been renamed before.
        ({"mean": (1.0009,), "std": (2.0009,)}, []),
        ({"name": "digits_again"}, []),
    ],
    ids=str,
)
def test_other_data_are_refused_and_more_strictly_when_resuming(changes, refused):
    other = dataclasses.replace(INFO, **changes)
    for trained_on in (False, True):
        if trained_on not in refused:
            check_same_data(other, INFO, trained_on)
            continue
        with pytest.raises(ValueError, match="These differ:") as error:
            check_same_data(other, INFO, trained_on)
        [(name, value)] = changes.items()
        _, head, row = str(error.value).splitlines()
        assert [name, str(getattr(INFO, name)), str(value)] == re.split("  +", row.strip())
        assert head.index("in the run") == row.index(str(getattr(INFO, name)))
        assert head.index("now") == row.index(str(value), head.index("now"))
