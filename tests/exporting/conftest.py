"""Runs and exports that several tests look at, and none changes."""

import pytest
import tensorflow as tf
from small_exports import export, train, write_photographs

from keras_preact.exporting import compare
from keras_preact.training import curves, pictures


@pytest.fixture(scope="session", autouse=True)
def in_no_time():
    """A call is enough where a report measures for seconds; no picture of a run is looked at."""
    png = tf.io.encode_png(tf.zeros([1, 1, 3], tf.uint8)).numpy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "_ROUND_SECONDS", 0)
        patch.setattr(pictures, "batch", lambda *arguments: png)
        patch.setattr(pictures, "confusion", lambda *arguments: png)
        patch.setattr(curves, "plot", lambda *arguments: None)
        yield


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """Of averaged weights."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return train(folder, dataset="digits", train_steps=45, ema_decay=0.8)


@pytest.fixture(scope="session")
def digits_export(digits_run, tmp_path_factory):
    """On all evaluation images, and a gate for int8 through which any little net gets."""
    out = tmp_path_factory.mktemp("digits_export") / "out"
    lite = {"tflite": ("float32", "int8"), "calibration_images": 100, "int8_loss_points": 5.0}
    return export(digits_run.folder, output_dir=str(out), eval_images=None, **lite)


@pytest.fixture(scope="session")
def photographs_run(tmp_path_factory):
    """On JPEG files of many sizes and shapes; it is never quite sure of its answers."""
    root = tmp_path_factory.mktemp("photographs")
    write_photographs(root / "images")
    data = {"dataset": "folder", "data_dir": str(root / "images"), "augmentation": "none"}
    options = {"image_size": 32, "global_batch_size": 16, "train_steps": 12}
    unsure = {"label_smoothing": 0.3, "learning_rate": 0.02}
    return train(root / "run", **data, **options, **unsure)
