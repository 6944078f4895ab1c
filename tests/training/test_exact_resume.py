"""A run that ended early and was resumed is the run that did not."""

import os
import signal
import time

import pytest
import tensorflow as tf
from same_runs import assert_same_runs
from small_labels import of_csv, write_csv
from small_runs import AtStep

from keras_preact.training import Interrupted, TrainConfig, run
from keras_preact.training.run_folder import RunFolder
from keras_preact.training.steps.evaluation import Evaluator

# Evaluations, with a checkpoint each, after steps 12 and 16; the digits have 1,437 images.
SMALL = TrainConfig(
    dataset="digits",
    depth=8,
    global_batch_size=128,
    train_steps=16,
    warmup_steps=3,
    log_steps=5,
    checkpoint_steps=5,
)
EVERYTHING = {
    "augmentation": "rand_augment=9,color_jitter=0.4,random_erasing=0.5",
    "ema_decay": 0.9,
    "mixup_alpha": 0.2,
    "label_smoothing": 0.1,
    "stochastic_depth_rate": 0.3,
    "recompute_bn_batches": 2,
    "gradient_accumulation_steps": 2,
    "steps_per_loop": 4,
    "shortcut": "dropout",
}
# Thawed after step 9, between the checkpoint after which a run dies and the next.
FINE_TUNING = {
    "augmentation": "none,trivial_augment,hue_jitter=0.2",
    "freeze": ("stem", "stage1"),
    "thaw_epoch": 0.8,
    "layer_decay": 0.8,
    "head_lr_multiplier": 5.0,
    "ema_decay": 0.9,
    "recompute_bn_batches": 2,
    "steps_per_loop": 4,
}
# As long as training: the rate of every step depends on its number alone.
MODERN = {"schedule": "cosine", "warmup_steps": 3, "learning_rate": 0.01}

LOSS = {
    "loss": "binary_cross_entropy",
    "bce_target_threshold": 0.2,
    "class_weights": "auto",
    "mixup_alpha": 0.2,
    "cutmix_alpha": 1.0,
    "label_smoothing": 0.1,
    "monitor": "macro_f1",
    "early_stopping_epochs": 5,
    "gradient_accumulation_steps": 2,
}


class Killed(BaseException):
    """Ends the process in these tests."""


def killed_at(config, step):
    """Runs to a step, and dies before its checkpoint."""

    def kill():
        raise Killed

    with pytest.raises(Killed):
        run(config, actions=[AtStep(step, kill)])


def signalled_in_evaluation(config, number, launch, monkeypatch):
    """Runs until a signal arrives at a launch of the first evaluation; returns the exit code."""
    original, launches = Evaluator._take, []

    def counted(self, arguments):
        launches.append(1)
        if len(launches) == launch:
            os.kill(os.getpid(), number)
            time.sleep(0.2)  # until another thread has heard it
        return original(self, arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Evaluator, "_take", counted)
        with pytest.raises(Interrupted) as interrupted:
            run(config)
    return interrupted.value.exit_code


GPUS = len(tf.config.list_physical_devices("GPU"))
SLOW = pytest.mark.slow
ON_GPUS = (pytest.mark.gpu, pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU here"))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"shortcut": "dropout"}, id="one_device"),
        pytest.param(FINE_TUNING, marks=SLOW, id="fine_tuning"),
        pytest.param(EVERYTHING, marks=SLOW, id="everything"),
        pytest.param(EVERYTHING | FINE_TUNING, marks=SLOW, id="all_with_fine_tuning"),
        pytest.param(LOSS, marks=SLOW, id="loss"),
        pytest.param({"devices": "CPU:0,CPU:1"}, marks=SLOW, id="replicas"),
        pytest.param({"devices": "CPU:0,CPU:1", **LOSS}, marks=SLOW, id="loss_replicas"),
        pytest.param(
            {"devices": "CPU:0,CPU:1", **FINE_TUNING}, marks=SLOW, id="fine_tuning_replicas"
        ),
        pytest.param({"precision": "mixed_float16"}, marks=SLOW, id="float16"),
        pytest.param(
            {"optimizer": "adamw", "clip_norm": 1.0, "ema_decay": 0.9, **MODERN, **FINE_TUNING},
            marks=SLOW,
            id="adamw_fine_tuning",
        ),
        pytest.param(
            {"optimizer": "lamb", "devices": "CPU:0,CPU:1", **MODERN},
            marks=SLOW,
            id="lamb_replicas",
        ),
        pytest.param(
            {"nesterov": True, "clip_norm": 0.5, "precision": "mixed_float16", **MODERN},
            marks=SLOW,
            id="nesterov_clipped_float16",
        ),
        pytest.param(
            {"schedule": "linear", "warmup_steps": None, "warmup_epochs": 0.3},
            marks=SLOW,
            id="linear",
        ),
        pytest.param({"devices": str(GPUS), "deterministic": True}, marks=ON_GPUS, id="gpus"),
    ],
)
def test_a_killed_run_ends_as_one_that_was_not(tmp_path, monkeypatch, options):
    config = SMALL.updated(**options)
    run(config.updated(run_dir=str(tmp_path / "whole")))
    broken = config.updated(run_dir=str(tmp_path / "broken"), resume=True)
    killed_at(broken, 8)
    assert signalled_in_evaluation(broken, signal.SIGTERM, 2, monkeypatch) == 143
    run(broken)
    assert_same_runs(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["cpu", pytest.param("CPU:0,CPU:1", marks=pytest.mark.slow)])
def test_a_killed_run_with_several_labels_ends_as_one_that_was_not(tmp_path, devices, monkeypatch):
    table = write_csv(tmp_path, weighted=True)
    options = {"class_weights": "auto", "cutmix_alpha": 1.0, "devices": devices}
    config = of_csv(table, tmp_path / "whole", train_steps=6, checkpoint_steps=1, **options)
    whole = run(config)
    broken = config.updated(run_dir=str(tmp_path / "broken"), resume=True)
    killed_at(broken, 3)
    assert signalled_in_evaluation(broken, signal.SIGTERM, 2, monkeypatch) == 143
    resumed = run(broken)
    assert_same_runs(tmp_path / "whole", tmp_path / "broken")
    assert resumed.scores == whole.scores
    first, second = (RunFolder(tmp_path / name) for name in ("whole", "broken"))
    assert first.test.read_bytes() == second.test.read_bytes()
    assert first.class_weights() == second.class_weights() is not None


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU here")
@pytest.mark.parametrize("xla", ["on", "off"])
def test_the_bits_do_not_depend_on_steps_per_loop_on_a_gpu(tmp_path, xla):
    options = {"devices": "GPU:0", "deterministic": True, "xla": xla}
    for steps in (1, 4):
        run(SMALL.updated(run_dir=str(tmp_path / str(steps)), steps_per_loop=steps, **options))
    assert_same_runs(tmp_path / "1", tmp_path / "4")
