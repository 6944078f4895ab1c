import json

import pytest
import tensorflow as tf

from keras_preact.data import DatasetInfo
from keras_preact.training import TrainConfig
from keras_preact.training.decision import Decision
from keras_preact.training.run_folder import RunFolder, configure

DECISION = Decision("one_device", ("CPU:0",), 1, "float32", False, {"strategy": "as given"})
INFO = DatasetInfo("digits", ("a", "b"), (8, 8, 1), 10, 5, (1.0,), (2.0,), 1.0)


def config(folder, **changes):
    values = {"dataset": "digits", "depth": 8, "run_dir": str(folder), "train_steps": 5}
    return TrainConfig(**{**values, **changes})


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.begin(config(folder), INFO, DECISION)
    return folder


def test_a_run_is_read_back_as_it_was_begun(run):
    assert run.read() == (config(run), INFO)
    assert run.labels.read_text() == "a\nb\n"
    record = json.loads(run.config.read_text())
    assert record["decision"]["precision"] == "float32"
    assert record["decision"]["reasons"] == {"strategy": "as given"}
    assert record["versions"]["tensorflow"] == tf.__version__
    assert {"keras_preact", "keras", "numpy", "python", "scikit-learn"} < set(record["versions"])
    run.begin(config(run, train_steps=9), INFO, DECISION)
    assert len(json.loads(run.config.read_text())["commands"]) == 2


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


def test_setting_aside_moves_only_what_a_run_writes_and_deletes_it_when_told(run):
    (run.path / "notes.txt").write_text("mine")
    run.checkpoints.mkdir()
    run.set_aside()
    visible = [path.name for path in run.path.iterdir() if not path.name.startswith(".")]
    assert visible == ["notes.txt"]
    [aside] = [path for path in run.path.iterdir() if path.name.startswith(".")]
    kept = sorted(path.name for path in aside.iterdir())
    assert kept == ["checkpoints", "config.json", "labels.txt"]
    run.begin(config(run, depth=20), INFO, DECISION)
    run.set_aside()  # the run of depth 20 never saved, so the first one is kept
    assert '"depth": 8' in (aside / "config.json").read_text()
    assert not run.config.exists()
    run.forget_aside()
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


def test_what_a_killed_process_left_does_not_lock_a_folder(tmp_path):
    (tmp_path / ".config.json.tmp").write_text("{")
    RunFolder(tmp_path).check_free(config(tmp_path))


def test_resuming_with_another_network_or_schedule_is_refused_with_both_values(run):
    with pytest.raises(ValueError) as error:
        run.check_free(config(run, resume=True, depth=20, learning_rate=0.5))
    assert "depth: 8 in the run, 20 now" in str(error.value)
    assert "learning_rate: 0.1 in the run, 0.5 now" in str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "mixed_bfloat16", "xla": "on", "steps_per_loop": 10},
        {"strategy": "mirrored", "devices": "2", "cluster_timeout_seconds": 5},
        {"profile_steps": (2, 3)},
    ],
)
def test_a_run_may_be_resumed_on_other_machines(run, changes):
    run.check_free(config(run, resume=True, **changes))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("sync_bn", True), ("gradient_accumulation_steps", 2), ("mixup_alpha", 0.2)),
        *(("stochastic_depth_rate", 0.5), ("label_smoothing", 0.1), ("ema_decay", 0.9)),
        *(("recompute_bn_batches", 3), ("global_batch_size", 64)),
    ],
)
def test_a_run_may_not_be_resumed_with_what_changes_its_result(run, name, value):
    with pytest.raises(ValueError, match=f"{name}: .* in the run, {value} now"):
        run.check_free(config(run, resume=True, **{name: value}))


def test_a_longer_run_may_be_resumed_but_not_where_its_schedule_was_scaled(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin(config(run), INFO, DECISION)
    run.check_free(config(run, resume=True, train_steps=9))
    run.begin(config(run, scale_schedule=True), INFO, DECISION)
    with pytest.raises(ValueError, match="train_steps: 5 in the run, 9 now"):
        run.check_free(config(run, resume=True, train_steps=9, scale_schedule=True))


def test_a_resumed_run_takes_its_flags_from_its_folder(run):
    given = {"run_dir": str(run), "resume": True, "train_epochs": 3.0}
    assert configure(given) == config(run, resume=True, train_steps=None, train_epochs=3.0)


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
