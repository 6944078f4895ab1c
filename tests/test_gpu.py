"""Behaviour that only GPUs show; skipped where there are none."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_preact.layers import BatchNormalization
from keras_preact.training import TrainConfig, run
from keras_preact.training.reporting import metrics_file

pytestmark = pytest.mark.gpu

GPUS = len(tf.config.list_physical_devices("GPU"))
if not GPUS:
    pytest.skip("TensorFlow sees no GPU here", allow_module_level=True)
CONFIG = TrainConfig(
    dataset="digits", depth=8, global_batch_size=64, schedule_steps=20, warmup_steps=0
)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("xla", ["on", "off"])
def test_all_gpus_train_as_one_processor_does(tmp_path, precision, xla):
    # Batches that every number of GPUs divides; statistics that do not depend on it.
    options = {"global_batch_size": 16 * GPUS, "train_steps": 5}
    if xla == "off":
        options["sync_bn"] = True
    run(CONFIG.updated(run_dir=str(tmp_path / "cpu"), devices="cpu", **options))
    run(CONFIG.updated(run_dir=str(tmp_path / "gpu"), precision=precision, xla=xla, **options))
    cpu, gpu = (metrics_file.read(tmp_path / name / "metrics.csv")[-1] for name in ("cpu", "gpu"))
    exact = precision == "float32" and (xla == "off" or GPUS == 1)
    assert gpu.train_loss == pytest.approx(cpu.train_loss, rel=5e-3 if exact else 0.1)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05)])
def test_the_fused_kernel_agrees_with_float64(dtype, tolerance):
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (8, 9, 9, 16))
    with tf.device("GPU:0"):
        layer = BatchNormalization(dtype="float32" if dtype == "float32" else "mixed_bfloat16")
        layer.build(x.shape)
        y = layer(tf.cast(x, dtype), training=True)
    assert "GPU" in y.device
    expected = (x - x.mean(axis=(0, 1, 2))) / np.sqrt(x.var(axis=(0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(tf.cast(y, tf.float64), expected, atol=tolerance)
    variance = 0.9 + 0.1 * x.var(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=tolerance)


@pytest.mark.parametrize("jit", [True, False])
@pytest.mark.parametrize(
    ("dtype", "ratio", "tolerance"),
    [
        ("float32", 1, 1e-4),
        ("float32", 100, 1e-4),
        ("float32", 1000, 1e-4),
        ("bfloat16", 100, 1e-2),
    ],
)
def test_the_variance_of_channels_far_from_zero_is_right(dtype, ratio, tolerance, jit):
    x = tf.cast(np.random.default_rng(0).normal(ratio, 1, (32, 16, 16, 8)), dtype)
    with tf.device("GPU:0"):
        layer = BatchNormalization(
            momentum=0.0, dtype="float32" if dtype == "float32" else "mixed_bfloat16"
        )
        layer.build(x.shape)
        y = tf.function(lambda x: layer(x, training=True), jit_compile=jit)(x)
    exact = tf.cast(x, tf.float64).numpy()
    variance = exact.var(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=tolerance)
    expected = (exact - exact.mean(axis=(0, 1, 2))) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(tf.cast(y, tf.float64), expected, atol=0.05)


def test_the_benchmark_measures_on_the_gpu(tmp_path):
    arguments = ["--models=20", "--frameworks=keras_preact,keras", "--rounds=1", "--steps=3"]
    done = subprocess.run(
        [sys.executable, "-m", "keras_preact.benchmark", *arguments, f"--csv={tmp_path}/b.csv"],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 1 + 2 * 2 * 2
