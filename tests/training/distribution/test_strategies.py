"""What holds while a run lasts: precision, determinism, all workers present and at one step."""

import keras
import pytest
import tensorflow as tf
from small_steps import CONFIG

from keras_preact.training.distribution import strategies
from keras_preact.training.distribution.cluster import WorkerLostError
from keras_preact.training.distribution.strategies import (
    check_same_start,
    prepared,
    wait_for_all,
)


@pytest.fixture
def determinism(monkeypatch):
    """Collects the calls; the real one would last for all other tests."""
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
def test_all_replicas_of_one_process_begin_at_the_same_step(replicas, monkeypatch):
    with prepared(CONFIG.updated(devices=str(replicas))) as (_, strategy, _):
        wait_for_all(strategy)
        for step in (0, 7, 2**40):
            check_same_start(strategy, step)
        # As if another worker were at a later step.
        monkeypatch.setattr(strategies, "_total", lambda strategy, number: number + 8)
        with pytest.raises(ValueError, match=r"same run_dir.*Received: step 7,000 here"):
            check_same_start(strategy, 7000)


class Workers:
    """A cluster of which some no longer answer."""

    is_chief = True

    def __init__(self, *silent):
        self._silent = list(silent)

    def silent(self):
        return self._silent


LOST = tf.errors.UnavailableError(None, None, "Connection  reset\nby peer")


@pytest.mark.parametrize(
    ("silent", "words"),
    [
        (["worker 1 at b:1"], "Lost worker 1 at b:1: it has ended or cannot be reached"),
        (["worker 1 at b:1", "worker 2 at c:1"], "Lost worker 1 at b:1 and worker 2 at c:1"),
        ([], "Lost another worker.*TensorFlow says: .*Connection reset by peer"),
    ],
)
def test_what_tensorflow_says_of_a_lost_worker_is_put_into_words(monkeypatch, silent, words):
    chosen = strategies.make_compute_plan(
        CONFIG.updated(devices="1"), strategies.Machine.here(), None
    )
    monkeypatch.setattr(strategies, "make_compute_plan", lambda *arguments: chosen)
    with pytest.raises(WorkerLostError, match=words), prepared(CONFIG, Workers(*silent)):
        raise LOST


def test_without_other_workers_errors_of_tensorflow_pass():
    with pytest.raises(tf.errors.UnavailableError), prepared(CONFIG):
        raise LOST
