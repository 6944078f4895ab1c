"""Precision, determinism, lost workers, and workers at different steps."""

import keras
import pytest
import tensorflow as tf
from small_steps import CONFIG

from keras_preact.training.distribution.cluster import WorkerLostError
from keras_preact.training.distribution.strategies import (
    check_same_start,
    prepared,
    wait_for_all,
)


@pytest.fixture
def determinism(monkeypatch):
    """Collects the calls; a real one would last for all other tests."""
    calls = []
    experimental = tf.config.experimental
    monkeypatch.setattr(experimental, "enable_op_determinism", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize("replicas", [1, 2])
def test_precision_and_determinism_are_those_of_the_run(determinism, replicas):
    config = CONFIG.updated(devices=str(replicas), precision="mixed_bfloat16", deterministic=True)
    with pytest.raises(KeyError), prepared(config) as (plan, strategy, _):
        assert keras.config.dtype_policy().name == plan.precision == "mixed_bfloat16"
        assert plan.replicas == strategy.num_replicas_in_sync == replicas
        raise KeyError
    assert keras.config.dtype_policy().name == "float32"
    assert determinism == [True]


def test_determinism_is_not_forced_on_others(determinism):
    with prepared(CONFIG):
        pass
    assert determinism == []


@pytest.mark.parametrize("replicas", [1, 2])
def test_all_replicas_of_one_process_begin_at_the_same_step(replicas):
    with prepared(CONFIG.updated(devices=str(replicas))) as (_, strategy, _):
        wait_for_all(strategy)
        for step in (0, 7, 2**40):
            check_same_start(strategy, step)


class AnotherAt:
    """A strategy of two replicas, with the other at its own step."""

    num_replicas_in_sync = 2

    def __init__(self, step):
        self._step = step

    def run(self, function, arguments):
        return function(*arguments)

    def reduce(self, operation, number, axis):
        return number + self._step


def test_workers_at_different_steps_do_not_begin():
    check_same_start(AnotherAt(7000), 7000)
    for step in (6992, 7008):
        with pytest.raises(ValueError, match=r"same run_dir.*Received: step 7,000 here"):
            check_same_start(AnotherAt(step), 7000)


class Workers:
    """A cluster of two workers on paper, with some that no longer answer."""

    is_chief = True
    addresses = ("a:1", "b:1")

    def __init__(self, *silent):
        self._silent = list(silent)

    def silent(self):
        return self._silent

    def resolver(self):
        # Without other processes, so that TensorFlow waits for none.
        return tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))


LOST = tf.errors.UnavailableError(None, None, "Connection  reset\nby peer")


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        (["worker 1 at b:1"], "Lost worker 1 at b:1: it has ended or cannot be reached"),
        (["worker 1 at b:1", "worker 2 at c:1"], "Lost worker 1 at b:1 and worker 2 at c:1"),
        ([], "Lost another worker.*TensorFlow says: .*Connection reset by peer"),
    ],
)
def test_tensorflows_error_for_a_lost_worker_names_the_worker(silent, words):
    with pytest.raises(WorkerLostError, match=words), prepared(CONFIG, Workers(*silent)):
        raise LOST


def test_without_other_workers_errors_of_tensorflow_pass():
    with pytest.raises(tf.errors.UnavailableError), prepared(CONFIG):
        raise LOST
