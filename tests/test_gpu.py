"""Behaviour that only GPUs show; skipped where there are none.

`keras_preact.doctor.gpu_tests` lists these tests.
"""

import csv
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_preact import exporting
from keras_preact.doctor import trials, verdicts
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


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("precision", verdicts.PRECISIONS)
def test_a_residual_unit_agrees_with_float64(precision, jit):
    errors = trials.unit(precision, jit, "GPU:0")["errors"]
    for name, tolerance in verdicts.TOLERANCES[precision].items():
        assert errors[name] <= tolerance


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize(
    ("precision", "offsets", "tolerance"),
    [("float32", (1, 10, 100, 1000), 1e-4), ("mixed_bfloat16", (1, 10, 100), 1e-2)],
)
def test_batch_normalization_agrees_with_float64(precision, offsets, tolerance, jit):
    layer = BatchNormalization(momentum=0.0, dtype=precision)
    noise = np.random.default_rng(0).normal(size=(32, 16, 16, 8))
    normalize = tf.function(lambda x: layer(x, training=True), jit_compile=jit)
    with tf.device("GPU:0"):
        layer.build(noise.shape)
        # Means over deviations: where they are large, digits cancel.
        for offset in offsets:
            x = tf.cast(noise + offset, layer.compute_dtype)
            y = normalize(x)
            assert "GPU" in y.device
            exact = tf.cast(x, tf.float64).numpy()
            mean, variance = exact.mean(axis=(0, 1, 2)), exact.var(axis=(0, 1, 2))
            np.testing.assert_allclose(layer.moving_variance, variance, rtol=tolerance)
            expected = (exact - mean) / np.sqrt(variance + layer.epsilon)
            np.testing.assert_allclose(tf.cast(y, tf.float64), expected, atol=0.05)


def test_an_export_says_what_its_model_says(tmp_path):
    # Training leaves TF32 on; the comparison must turn it off by itself, and on again.
    tf.config.experimental.enable_tensor_float_32_execution(True)
    run(CONFIG.updated(run_dir=str(tmp_path / "run"), train_steps=5))
    exporting.run(
        exporting.ExportConfig(run_dir=str(tmp_path / "run"), tflite=("float32",), eval_images=64)
    )
    assert list((tmp_path / "run/export").rglob("*.tflite")), "it differs too much"
    assert tf.config.experimental.tensor_float_32_execution_enabled()


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
    with open(tmp_path / "b.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 2 * 2
    for row in rows:
        assert row["error"] == "" and row["device"] not in ("", "CPU")
        assert float(row["device_memory_mebibytes"]) > 0
