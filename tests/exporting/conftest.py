"""Runs and exports that several tests read and none changes."""

import pytest
from shared_between_workers import shared
from small_exports import export, train, write_photographs


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    """A run with averaged weights."""
    options = {"dataset": "digits", "train_steps": 45, "ema_decay": 0.8}
    return shared(tmp_path_factory, "digits_run", lambda folder: train(folder / "run", **options))


@pytest.fixture(scope="session")
def digits_export(digits_run, tmp_path_factory):
    """Compared on all evaluation images, with a tolerance of int8 that any small net meets."""
    lite = {"tflite": ("float32", "int8"), "calibration_images": 100, "int8_loss_points": 5.0}

    def make(folder):
        out = str(folder / "out")
        return export(digits_run.folder, output_dir=out, eval_images=None, **lite)

    return shared(tmp_path_factory, "digits_export", make)


@pytest.fixture(scope="session")
def photographs_run(tmp_path_factory):
    """A run on JPEG files of many sizes and shapes, whose net is never quite sure."""
    options = {"image_size": 32, "global_batch_size": 16, "train_steps": 12}
    unsure = {"label_smoothing": 0.3, "learning_rate": 0.02}

    def make(root):
        write_photographs(root / "images")
        data = {"dataset": "folder", "data_dir": str(root / "images"), "augmentation": "none"}
        return train(root / "run", **data, **options, **unsure)

    return shared(tmp_path_factory, "photographs_run", make)
