"""Records of signal and gradient: they measure the right thing, and do not change the run."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from same_runs import assert_same_runs
from small_runs import AtStep, events, harmed_at_step, small, steps_shown

from keras_preact.data import datasets
from keras_preact.layers.batch_norm import bn_layers
from keras_preact.training import Action, DivergenceError, run
from keras_preact.training.reporting import metrics_file, propagation_file
from keras_preact.training.reporting.propagation_recorder import PropagationRecorder
from keras_preact.training.run import build_model

# Random, so that an extra draw would show; with checkpoints between the records.
RECORDED = {"shortcut": "dropout", "log_steps": 3, "checkpoint_steps": 3}
EVERYTHING = {
    **RECORDED,
    "devices": "CPU:0,CPU:1",
    "sync_bn": True,
    "precision": "mixed_bfloat16",
    "steps_per_loop": 4,
    "stochastic_depth_rate": 0.3,
    "ema_decay": 0.9,
    "recompute_bn_batches": 2,
}


pytestmark = pytest.mark.usefixtures("without_pictures")


def records(folder):
    return propagation_file.read(folder / "propagation.csv")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder of a run with records."""
    folder = tmp_path_factory.mktemp("runs") / "recorded"
    run(small(folder, log_propagation_steps=1, **RECORDED))
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The folder of the same run without records."""
    folder = tmp_path_factory.mktemp("runs") / "bare"
    run(small(folder, **RECORDED))
    return folder


def test_the_first_images_of_the_run_are_measured_as_training_sees_them():
    config = small("unused", seed=5)
    data = datasets.load("digits")
    model = build_model(config, data.info)
    record = PropagationRecorder(model, data, config).measure(7)
    indices = data.train_indices(0, 32, seed=5)
    images, labels = data.train_source.images[indices], data.train_source.labels[indices]
    x = ((images - np.array(data.info.mean)) / data.info.std).astype(np.float32)
    signal = model.get_layer("stem_conv")(x).numpy()
    np.testing.assert_allclose(record.forward.variance[0], signal.var(), rtol=1e-5)
    logits = model(x, training=True).numpy().astype(np.float64)
    of_label = np.exp(logits[range(32), labels]) / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(record.backward.loss, -np.log(of_label).mean(), rtol=1e-5)
    assert record.step == 7


def test_bn_that_keeps_its_statistics_is_measured_as_it_trains():
    config, data = small("unused"), datasets.load("digits")
    model = build_model(config, data.info)
    recorder = PropagationRecorder(model, data, config)
    losses = [recorder.measure(0).backward.loss]
    # As before and after a thaw, of one part alone.
    for kept in (True, False):
        for layer in bn_layers(model.get_layer("stage2_unit1")):
            layer.keeps_statistics = kept
        losses.append(recorder.measure(1).backward.loss)
    assert losses[0] == losses[2] != losses[1]


def test_no_more_images_are_measured_than_a_step_has():
    config = small("unused", global_batch_size=4)
    data = datasets.load("digits")
    model = build_model(config, data.info)
    # Each of n images has a share of 1 / n in the mean, so the norm falls with the root of n.
    few, many = (
        PropagationRecorder(model, data, each).measure(0).backward.output_gradient_norm
        for each in (config, config.updated(global_batch_size=1000))
    )
    assert few / many == pytest.approx(8**0.5, rel=0.2)


class CountingRestarts(Action):
    """Counts from the first step on how often the clocks of a run are restarted."""

    def begin(self, run):
        self.count, restart_clocks = 0, run.restart_clocks

        def counted():
            self.count += 1
            restart_clocks()

        run.restart_clocks = counted

    def next_due(self, done):
        return None


def test_records_are_made_at_the_start_at_regular_steps_and_at_the_end(tmp_path):
    restarts = CountingRestarts()
    config = small(tmp_path, train_steps=5, log_propagation_steps=3, steps_per_loop=10)
    run(config, actions=[restarts])
    log = records(tmp_path)
    assert log.steps.tolist() == [0, 3, 5]
    assert log.units == ("stage1_unit1", "stage2_unit1", "stage3_unit1")
    # Once the first step is compiled, after both records since, and after the evaluation.
    assert restarts.count == 1 + 2 + 1
    # The weights have changed in between, and so has what is measured.
    assert (np.diff(log.gradient_norm, axis=0) != 0).all()


def test_tensorboard_shows_the_logarithms_of_the_norms_and_the_picture(recorded):
    shown, log = events(recorded), records(recorded)
    for name in ("gradient_norm", "shortcut_norm", "residual_norm"):
        last = shown.Tensors(f"propagation/{name}")[-1]
        buckets = tf.make_ndarray(last.tensor_proto)
        logarithms = np.log10(getattr(log, name)[-1])
        assert (last.step, buckets[:, 2].sum()) == (6, 3)
        np.testing.assert_allclose(buckets[0, 0], logarithms.min(), rtol=1e-4)
        np.testing.assert_allclose(buckets[-1, 1], logarithms.max(), rtol=1e-4)
    assert steps_shown(recorded, "train", "propagation/gradient") == [0, 1, 2, 3, 4, 5, 6]


def losses(folder):
    shown = events(folder).Tensors("loss")
    return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in shown]


def test_a_run_with_records_ends_as_one_without(recorded, bare):
    assert_same_runs(recorded, bare)
    # Means over the steps since the last line, whatever was read in between.
    assert losses(recorded) == losses(bare)
    assert not (bare / "propagation.csv").exists()


@pytest.mark.slow
def test_a_run_of_everything_at_once_ends_with_records_as_without(tmp_path):
    run(small(tmp_path / "with", log_propagation_steps=1, **EVERYTHING))
    run(small(tmp_path / "without", **EVERYTHING))
    assert_same_runs(tmp_path / "with", tmp_path / "without")
    assert np.isfinite(records(tmp_path / "with").gradient_norm).all()


class Killed(BaseException):
    """Ends the process in this test."""


@pytest.mark.slow
def test_a_killed_and_resumed_run_has_the_records_of_one_that_was_not(recorded, tmp_path):
    def kill():
        raise Killed

    config = small(tmp_path, log_propagation_steps=1, resume=True, **RECORDED)
    with pytest.raises(Killed):
        run(config, actions=[AtStep(5, kill)])
    assert records(tmp_path).steps.tolist() == [0, 1, 2, 3, 4, 5]
    # It resumes after step 3, which has been recorded.
    run(config)
    assert (tmp_path / "propagation.csv").read_bytes() == (
        (recorded / "propagation.csv").read_bytes()
    )
    for name in ("gradient_norm", "gradient"):
        assert steps_shown(tmp_path, "train", f"propagation/{name}") == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_records_may_begin_when_a_run_is_resumed(bare, recorded, tmp_path):
    folder = shutil.copytree(bare, tmp_path / "run")
    run(small(folder, **{**RECORDED, "train_steps": 7}, resume=True, log_propagation_steps=3))
    assert records(folder).steps.tolist() == [6, 7]
    # The record of a network does not depend on its past.
    np.testing.assert_array_equal(records(folder).cosine[0], records(recorded).cosine[-1])


def lose_a_weight(state, rows):
    with state.in_network() as network:
        variable = network.trainable_variables[0]
        variable.assign(tf.fill(variable.shape, np.nan))
    return rows


def test_after_a_rollback_the_later_records_are_made_again(tmp_path, monkeypatch):
    harmed_at_step(monkeypatch, 5, lose_a_weight)
    options = {"log_propagation_steps": 1, "checkpoint_steps": 3, "log_steps": 50}
    run(small(tmp_path, on_nan="rollback", **options))
    assert records(tmp_path).steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert steps_shown(tmp_path, "train", "propagation/gradient") == [0, 1, 2, 3, 4, 5, 6]


def test_a_network_that_has_diverged_is_announced_and_not_recorded(tmp_path, monkeypatch):
    harmed_at_step(monkeypatch, 2, lose_a_weight)
    with pytest.raises(DivergenceError, match="A variable was no longer finite after step 2"):
        run(small(tmp_path, log_propagation_steps=1, log_steps=50))
    assert records(tmp_path).steps.tolist() == [0, 1]


def test_a_network_that_is_about_to_diverge_can_be_measured(tmp_path):
    options = {"learning_rate": 1e30, "warmup_steps": 0, "log_steps": 50}
    with pytest.raises(DivergenceError, match="The loss was nan at step 2"):
        run(small(tmp_path, log_propagation_steps=1, **options))
    assert records(tmp_path).steps.tolist() == [0, 1]


def test_a_record_that_cannot_be_written_does_not_end_a_run_and_is_written_later(tmp_path, capsys):
    path = tmp_path / "propagation.csv"

    def put_a_folder_there():
        path.unlink()
        path.mkdir()

    actions = [AtStep(1, put_a_folder_there), AtStep(5, path.rmdir)]
    run(small(tmp_path, log_propagation_steps=2), actions=actions)
    assert [row.step for row in metrics_file.read(tmp_path / "metrics.csv")] == [6]
    assert records(tmp_path).steps.tolist() == [0, 2, 4, 6]
    lines = capsys.readouterr().out.splitlines()
    assert lines.count(f"Could not write {path}: Cannot overwrite: {path} is a directory") == 2


def test_a_damaged_file_of_records_is_refused_before_the_run_is_resumed(recorded, tmp_path):
    folder = shutil.copytree(recorded, tmp_path / "run")
    lines = (folder / "propagation.csv").read_text().splitlines()
    (folder / "propagation.csv").write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match='line 22: "nothing"'):
        run(small(folder, resume=True, **RECORDED))
