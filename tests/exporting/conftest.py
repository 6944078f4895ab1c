"""Runs and exports that several tests read and none changes."""

import pytest
from small_exports import export, train, write_photographs


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run with averaged weights."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    return train(folder, dataset="digits", train_steps=45, ema_decay=0.8)


@pytest.fixture(scope="session")
def digits_export(digits_run, tmp_path_factory):
    """Compared on all evaluation images, with a tolerance of int8 that any small net meets."""
    out = tmp_path_factory.mktemp("digits_export") / "out"
    lite = {"tflite": ("float32", "int8"), "calibration_images": 100, "int8_loss_points": 5.0}
    return export(digits_run.folder, output_dir=str(out), eval_images=None, **lite)


@pytest.fixture(scope="session")
def photographs_run(tmp_path_factory):
    """A run on JPEG files of many sizes and shapes, whose net is never quite sure."""
    root = tmp_path_factory.mktemp("photographs")
    write_photographs(root / "images")
    data = {"dataset": "folder", "data_dir": str(root / "images"), "augmentation": "none"}
    options = {"image_size": 32, "global_batch_size": 16, "train_steps": 12}
    unsure = {"label_smoothing": 0.3, "learning_rate": 0.02}
    return train(root / "run", **data, **options, **unsure)
