"""Two replicas compute what one device computes."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from same_runs import saved
from small_labels import several_labels
from small_steps import assert_same, copies, everywhere, make, weights

from keras_preact.data import datasets
from keras_preact.training import TrainConfig, run
from keras_preact.training.distribution.distributed_input import feed_training
from keras_preact.training.networks import build_model
from keras_preact.training.reporting import metrics_file
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.bn_statistics import ReplicaStatistics
from keras_preact.training.steps.evaluation import Evaluator
from keras_preact.training.steps.train_step import TrainStep

FLOAT32 = {"rtol": 1e-3, "atol": 1e-5}


def moving_statistics(small):
    return {
        path: values
        for path, values in everywhere(small, "non_trainable").items()
        if "moving_" in path
    }


def test_with_synchronized_bn_two_replicas_train_as_one_device_does():
    one, two = make(1), make(2, sync_bn=True)
    first, second = one.take(4), two.take(4)
    for name in ("loss", "correct", "gradient_norm"):
        np.testing.assert_allclose(second[name], first[name], rtol=1e-3, err_msg=name)
    assert_same(weights(one), weights(two), **FLOAT32)
    for path, [a, b] in moving_statistics(two).items():
        np.testing.assert_array_equal(a, b, err_msg=path)
        np.testing.assert_allclose(a, moving_statistics(one)[path][0], rtol=1e-3, atol=1e-5)


def test_two_replicas_with_their_own_statistics_equal_two_accumulated_parts():
    # BN sees the same 16 images in both cases, and the gradients of 32 are summed.
    parts, replicas = make(1, gradient_accumulation_steps=2), make(2)
    first, second = parts.take(4), replicas.take(4)
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-3)
    assert_same(weights(parts), weights(replicas), **FLOAT32)
    whole = make(1)
    assert abs(whole.take(4)["loss"][-1] / first["loss"][-1] - 1) > 1e-3


def test_accumulation_and_synchronized_bn_go_together():
    # Four parts of eight images in one case, two parts of two halves in the other.
    pairs = make(2, sync_bn=True, gradient_accumulation_steps=2).take(2)
    assert np.isfinite(pairs["loss"]).all() and pairs["gradient_norm"].min() > 0


@pytest.mark.slow
def test_xla_on_two_replicas_computes_what_the_kernels_compute():
    plain, compiled = make(2, xla="off"), make(2, xla="on")
    np.testing.assert_allclose(compiled.take(2)["loss"], plain.take(2)["loss"], rtol=1e-3)
    assert_same(weights(plain), weights(compiled), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "precision", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)]
)
def test_lower_precisions_on_two_replicas_follow_float32_on_one(precision):
    exact = make(1).take(3)
    lower = make(2, sync_bn=True, precision=precision)
    report = lower.take(3)
    np.testing.assert_allclose(report["loss"], exact["loss"], rtol=0.03)
    assert report["applied"].all()
    assert all(value.dtype == np.float32 for value in weights(lower).values())


def test_statistics_differ_between_replicas_until_they_are_averaged_in_one_all_reduce(monkeypatch):
    small = make(2, ema_decay=0.5)
    calls = []
    all_reduce = tf.distribute.ReplicaContext.all_reduce

    def counting(self, operation, value, options=None):
        calls.append(self.replica_id_in_sync_group)
        return all_reduce(self, operation, value, options)

    monkeypatch.setattr(tf.distribute.ReplicaContext, "all_reduce", counting)
    small.take(2)
    # One for each replica, when traced: gradients, loss and correct images together.
    assert len(calls) == 2
    before = moving_statistics(small)
    assert any(not np.allclose(a, b, rtol=1e-4) for a, b in before.values())
    statistics = ReplicaStatistics(small.state, small.strategy)
    for method in (statistics.gather, statistics.merge):
        calls.clear()
        method()
        assert len(calls) == 2
    for path, [a, b] in moving_statistics(small).items():
        np.testing.assert_array_equal(a, b, err_msg=path)
        np.testing.assert_allclose(a, np.mean(before[path], axis=0), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(*copies(small.state.rows.average_statistics))


class InfinityOnReplica1(TrainStep):
    """The second step of replica 1 overflows, in one gradient."""

    def _differentiate(self, rows, batch, step, replica):
        gradient, *others = super()._differentiate(rows, batch, step, replica)
        hit = (replica == 1) & (step == 1)
        return tf.concat([tf.where(hit, np.inf, gradient[:1]), gradient[1:]], axis=0), *others


def test_an_infinity_on_replica_1_skips_the_step_everywhere_and_lowers_the_scale():
    small = make(2, InfinityOnReplica1, precision="mixed_float16")
    assert small.take(1)["applied"] == 1
    before, statistics = weights(small), moving_statistics(small)
    report = small.take(1)
    assert report["applied"] == 0 and not np.isfinite(report["gradient_norm"])
    assert_same(before, weights(small), rtol=0, atol=0)
    for path, values in moving_statistics(small).items():
        np.testing.assert_array_equal(values, statistics[path], err_msg=path)
    assert copies(small.state.rows.loss_scale) == [2.0**14, 2.0**14]
    after = small.take(1)
    assert after["applied"] == 1 and after["loss_scale"] == 2.0**14
    assert any(not np.array_equal(before[path], value) for path, value in weights(small).items())


def test_replicas_receive_the_pieces_of_the_batch_of_one_device():
    data = datasets.load("digits")
    small = make(2)
    pairs = feed_training(small.strategy, data, 32, seed=3, start_step=7)
    whole = data.train(32, seed=3, start_step=7)
    for _, (images, labels) in zip(range(5), whole, strict=False):
        pieces = [small.strategy.experimental_local_results(part) for part in next(pairs)]
        np.testing.assert_array_equal(np.concatenate(pieces[0]), images)
        np.testing.assert_array_equal(np.concatenate(pieces[1]), labels)


@pytest.mark.parametrize("batch_size", [32, 100, 500])
def test_uneven_last_batches_are_evaluated_on_two_replicas_as_on_one(batch_size):
    data = datasets.load("digits")
    results = []
    for replicas, on_device in ((1, False), (2, False), (2, True)):
        small = make(replicas)
        images = small.step.images if on_device else None
        evaluate = Evaluator(
            small.state.network, data, small.step.plan, small.strategy, images=images
        )
        results.append(evaluate(batch_size))
        # A request of any process ends the evaluation.
        assert evaluate(batch_size, lambda: True) is None
    for other in results[1:]:
        assert results[0].count == other.count == 360
        np.testing.assert_array_equal(results[0].confusion, other.confusion)
        np.testing.assert_allclose(results[0].loss, other.loss, rtol=1e-5)


def test_several_labels_are_evaluated_on_two_replicas_as_on_one():
    data, results = several_labels(), []
    for replicas in (1, 2):
        small = make(replicas)
        with small.strategy.scope():
            keras.utils.set_random_seed(2)
            model = build_model(small.config, data.info)
        evaluate = Evaluator(model, data, small.step.plan, small.strategy)
        results.append(evaluate(100))
    one, two = results
    assert one.count == two.count == 360
    for name in ("true", "predicted", "right"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    np.testing.assert_allclose(
        one.class_average_precisions, two.class_average_precisions, rtol=1e-6
    )
    assert one.loss == pytest.approx(two.loss, rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_run_resumed_on_two_devices_and_back_on_one_ends_as_if_it_had_stayed(tmp_path):
    config = TrainConfig(
        dataset="digits",
        depth=8,
        global_batch_size=64,
        schedule_steps=6,
        warmup_steps=0,
        learning_rate=0.05,
        sync_bn=True,
    )
    halves = "CPU:0,CPU:1"
    stayed, moved = RunFolder(tmp_path / "stayed"), RunFolder(tmp_path / "moved")
    run(config.updated(run_dir=str(stayed), devices="cpu"))
    for end, devices in ((2, "cpu"), (4, halves), (6, "cpu")):
        changes = {"train_steps": end, "devices": devices, "resume": end > 2}
        run(config.updated(run_dir=str(moved), **changes))
    first, second = saved(stayed.path), saved(moved.path)
    for name, value in first.items():
        if name.startswith(("model/", "optimizer/")):
            np.testing.assert_allclose(second[name], value, **FLOAT32, err_msg=name)
    [whole], parts = metrics_file.read(stayed.metrics), metrics_file.read(moved.metrics)
    assert [row.step for row in parts] == [2, 4, 6]
    assert parts[-1].eval_loss == pytest.approx(whole.eval_loss, rel=1e-3)
    for name in ("train_loss", "train_accuracy"):
        mean = np.mean([getattr(row, name) for row in parts])
        assert mean == pytest.approx(getattr(whole, name), rel=1e-3), name
    history = json.loads(moved.config.read_text())["history"]
    assert [(entry["step"], entry["changes"]) for entry in history] == [
        (0, {}),
        (2, {"devices": ["cpu", halves], "train_steps": [2, 4]}),
        (4, {"devices": [halves, "cpu"], "train_steps": [4, 6]}),
    ]
