import dataclasses
import os
import signal

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.data import datasets
from keras_preact.training import DivergenceError, Interrupted, TrainConfig, metrics, run
from keras_preact.training.run_folder import RunFolder

# One log line, one evaluation: the digits have 1,437 training images.
SMALL = TrainConfig(
    dataset="digits", depth=8, global_batch_size=128, train_steps=6, warmup_steps=3, log_steps=2
)


def small(folder, **changes):
    return SMALL.updated(run_dir=str(folder), **changes)


def weights(folder):
    """Every variable of the newest checkpoint, by name, but the count of its saves."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(folder / "checkpoints")))
    names = [
        name
        for name in reader.get_variable_to_shape_map()
        if name.startswith(("model/", "optimizer/"))
    ]
    return {name: reader.get_tensor(name) for name in names}


def assert_same_weights(first, second, **tolerance):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys() and len(first) > 40
    for name, value in first.items():
        np.testing.assert_allclose(second[name], value, err_msg=name, **tolerance)


def test_a_run_leaves_everything_that_is_promised(tmp_path):
    result = run(small(tmp_path / "run", train_steps=13))
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert written == {
        *("config.json", "labels.txt", "metrics.csv", "curves.png"),
        *("checkpoints", "tensorboard"),
    }
    # 1,437 / 128 = 11.2 steps an epoch, so one evaluation in it and one at the end.
    rows = metrics.read(tmp_path / "run" / "metrics.csv")
    assert [row.step for row in rows] == [12, 13]
    assert rows[-1].eval_accuracy == pytest.approx(result.accuracy, rel=1e-5)
    assert rows[-1].epoch == pytest.approx(13 * 128 / 1437, rel=1e-5)
    assert result.count == 360
    assert (tmp_path / "run" / "labels.txt").read_text().split() == list("0123456789")


def test_one_seed_gives_one_run_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(small(tmp_path / name, seed=seed))
    assert_same_weights(tmp_path / "a", tmp_path / "b", rtol=1e-3, atol=1e-4)
    first, other = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert any(not np.allclose(first[name], other[name], atol=1e-2) for name in first)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    run(small(tmp_path / "whole"))
    run(small(tmp_path / "parts", train_steps=3))
    run(small(tmp_path / "parts", train_steps=6, resume=True))
    # Not bit for bit: reductions on several threads have no fixed order.
    assert_same_weights(tmp_path / "whole", tmp_path / "parts", rtol=1e-3, atol=1e-4)
    whole, parts = (
        metrics.read(tmp_path / name / "metrics.csv")[-1] for name in ("whole", "parts")
    )
    assert whole.eval_loss == pytest.approx(parts.eval_loss, rel=1e-3)


def test_a_complete_run_is_resumed_without_a_further_step(tmp_path, capsys):
    run(small(tmp_path / "run"))
    before = weights(tmp_path / "run")
    run(small(tmp_path / "run", resume=True))
    assert "complete" in capsys.readouterr().out
    for name, value in weights(tmp_path / "run").items():
        np.testing.assert_array_equal(value, before[name])


def test_a_run_of_another_is_not_touched_but_overwritten_on_request(tmp_path):
    run(small(tmp_path / "run"))
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    with pytest.raises(ValueError, match="holds a run already"):
        run(small(tmp_path / "run", depth=14))
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before
    run(small(tmp_path / "run", train_steps=2, overwrite=True))
    assert [row.step for row in metrics.read(tmp_path / "run" / "metrics.csv")] == [2]


def test_a_run_is_not_resumed_on_other_data(tmp_path, monkeypatch):
    run(small(tmp_path / "run", train_steps=2))
    before = (tmp_path / "run" / "config.json").read_bytes()
    load = datasets.load

    def load_renamed(*arguments, **options):
        data = load(*arguments, **options)
        info = dataclasses.replace(data.info, class_names=tuple("abcdefghij"))
        return dataclasses.replace(data, info=info)

    monkeypatch.setattr(datasets, "load", load_renamed)
    with pytest.raises(ValueError, match="must have the class_names of the run"):
        run(small(tmp_path / "run", train_steps=4, resume=True))
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_an_overwritten_run_is_kept_until_the_new_one_has_saved(tmp_path):
    run(small(tmp_path / "run", train_steps=2))
    with pytest.raises(DivergenceError):
        run(small(tmp_path / "run", overwrite=True, learning_rate=1e30, warmup_steps=0))
    old = tmp_path / "run" / ".overwritten"
    assert (old / "checkpoints" / "step-2.index").exists() and (old / "config.json").exists()
    run(small(tmp_path / "run", train_steps=3, overwrite=True))
    assert not old.exists()


def test_evaluating_a_run_gives_the_accuracy_that_training_reported(tmp_path, capsys):
    trained = run(small(tmp_path / "run"))
    config, _ = RunFolder(tmp_path / "run").read()
    evaluated = run(config.updated(mode="evaluate", global_batch_size=77))
    assert evaluated.accuracy == trained.accuracy
    assert evaluated.loss == pytest.approx(trained.loss, rel=1e-4)
    assert f"{trained.accuracy:.2%}" in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    # Finite for the first two steps, of the warm-up, and hopeless afterwards.
    config = small(
        tmp_path / "run",
        learning_rate=1e30,
        warmup_steps=2,
        warmup_learning_rate=1e-3,
        checkpoint_steps=2,
    )
    with pytest.raises(DivergenceError) as error:
        run(config)
    assert "step 4" in str(error.value) or "after step 4" in str(error.value)
    assert str(tmp_path / "run" / "checkpoints" / "step-2") in str(error.value)
    saved = weights(tmp_path / "run")
    assert all(np.isfinite(value).all() for value in saved.values() if value.dtype.kind == "f")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint_to_resume_from(tmp_path, number, monkeypatch):
    from keras_preact.training import trainer

    def signal_after_step_2(self, done, show):
        original(self, done, show)
        if done == 2:
            os.kill(os.getpid(), number)

    original = trainer.Trainer._log
    monkeypatch.setattr(trainer.Trainer, "_log", signal_after_step_2)
    with pytest.raises(Interrupted) as interrupted:
        run(small(tmp_path / "run"))
    assert interrupted.value.exit_code == 128 + number
    assert (tmp_path / "run" / "checkpoints" / "step-2.index").exists()
    monkeypatch.setattr(trainer.Trainer, "_log", original)
    run(small(tmp_path / "run", resume=True))
    assert metrics.read(tmp_path / "run" / "metrics.csv")[-1].step == 6
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": None}, "dataset must be given"),
        ({"depth": None}, "depth must be given"),
        ({"dataset": "digit"}, "Did you mean 'digits'"),
        ({"dataset": "folder"}, "needs data_dir"),
        ({"dataset": "folder", "data_dir": "/no/such/folder"}, "/no/such/folder/train"),
        ({"dataset": "cifar10", "data_dir": "/no/such/folder"}, "/no/such/folder/cifar10/VERSION"),
        ({"augmentation": "random_resized_crop"}, "augmentation of digits"),
    ],
)
def test_what_cannot_work_fails_before_anything_is_written(tmp_path, changes, words):
    with pytest.raises(ValueError, match=words):
        run(dataclasses.replace(small(tmp_path / "run"), **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"shortcut": "none"},
        {"unit": "original", "shortcut": "dropout", "block": "single"},
        {"shortcut": "exclusive_gating", "shortcut_arguments": "initial_bias=-3"},
    ],
)
def test_other_units_and_shortcuts_train_from_flags_alone(tmp_path, changes):
    assert np.isfinite(run(small(tmp_path / "run", train_steps=2, **changes)).loss)
