"""GPUs, precision, determinism, lost workers, and workers at different steps."""

from types import SimpleNamespace

import keras
import pytest
import tensorflow as tf
from small_steps import CONFIG

from keras_preact.training.distribution.cluster import WorkerLostError
from keras_preact.training.distribution.strategies import (
    check_same_start,
    claim,
    prepared,
    wait_for_all,
)

CPUS = [(1, "cpu"), (2, "CPU:0,CPU:1")]


@pytest.fixture
def determinism(monkeypatch):
    """Collects the calls; a real one would last for all other tests."""
    calls = []
    experimental = tf.config.experimental
    monkeypatch.setattr(experimental, "enable_op_determinism", lambda: calls.append(True))
    return calls


@pytest.mark.parametrize(("replicas", "devices"), CPUS)
def test_precision_and_determinism_are_those_of_the_run(determinism, replicas, devices):
    config = CONFIG.updated(devices=devices, precision="mixed_bfloat16", deterministic=True)
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


@pytest.mark.parametrize("devices", ["cpu", "CPU:0,CPU:1"])
def test_all_replicas_of_one_process_begin_at_the_same_step(devices):
    with prepared(CONFIG.updated(devices=devices)) as (_, strategy, _):
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


class TensorFlow:
    """What `tf.config` does with GPUs: once in use, it changes nothing."""

    def __init__(self, gpus, in_use=False):
        self._gpus = [f"gpu {index}" for index in range(gpus)]
        self.visible, self.growing, self.in_use = list(self._gpus), set(), in_use
        self.experimental = SimpleNamespace(set_memory_growth=self._set_memory_growth)

    def list_physical_devices(self, kind):
        return list(self._gpus)

    def get_visible_devices(self, kind):
        return list(self.visible)

    def set_visible_devices(self, devices, kind):
        if devices != self.visible:
            self._change()
            self.visible = devices

    def _set_memory_growth(self, gpu, enable):
        if gpu not in self.growing:
            self._change()
            self.growing.add(gpu)

    def _change(self):
        if self.in_use:
            raise RuntimeError("cannot be modified after being initialized")


@pytest.mark.parametrize(
    ("devices", "visible", "names"),
    [
        (["GPU:1"], ["gpu 1"], ("GPU:0",)),
        (["GPU:0"], ["gpu 0"], ("GPU:0",)),
        # TensorFlow counts in the machine's order; replicas stay in the user's.
        (["GPU:3", "GPU:1"], ["gpu 1", "gpu 3"], ("GPU:1", "GPU:0")),
        (["CPU:0"], [], ("CPU:0",)),
        (["CPU:0", "CPU:1"], [], ("CPU:0", "CPU:1")),
    ],
)
def test_only_the_chosen_gpus_are_visible_and_their_memory_grows(devices, visible, names):
    config = TensorFlow(gpus=4)
    assert claim(devices, config, {}) == names
    assert config.visible == visible and config.growing == set(visible)
    # A second run in the process.
    config.in_use = True
    assert claim(devices, config, {}) == names


@pytest.mark.parametrize("value", ["true", "false"])
def test_the_environment_decides_about_memory_where_it_says_something(value):
    config = TensorFlow(gpus=2)
    claim(["GPU:1"], config, {"TF_FORCE_GPU_ALLOW_GROWTH": value})
    assert config.visible == ["gpu 1"] and not config.growing


def test_a_tensorflow_in_use_keeps_its_gpus_and_runs_on_some_of_them():
    config = TensorFlow(gpus=4, in_use=True)
    assert claim(["GPU:2"], config, {}) == ("GPU:2",)
    assert claim(["CPU:0"], config, {}) == ("CPU:0",)
    config.visible = ["gpu 0", "gpu 2"]
    assert claim(["GPU:2"], config, {}) == ("GPU:1",)
    with pytest.raises(
        ValueError,
        match=r"^devices=GPU:2,GPU:3 needs another process: .* with "
        r"GPU:0, GPU:2 alone, and can no longer add GPU:3\.$",
    ):
        claim(["GPU:2", "GPU:3"], config, {})
    config.visible = []
    with pytest.raises(ValueError, match="with the CPU alone"):
        claim(["GPU:0"], config, {})


def test_without_gpus_nothing_is_changed():
    assert claim(["CPU:0", "CPU:1"], TensorFlow(gpus=0, in_use=True), {}) == ("CPU:0", "CPU:1")
