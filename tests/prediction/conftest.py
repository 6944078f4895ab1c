"""One small run, and files of every kind made from its network."""

import keras
import numpy as np
import pytest
from fake_classifier import encode_all
from image_encoding import encode, smooth_image
from shared_between_workers import shared

from keras_preact import load_run
from keras_preact.exporting.formats import int8, saved_model, tflite
from keras_preact.exporting.graph import network, rewriting
from keras_preact.training import TrainConfig, run
from keras_preact.training.run_folder import RunFolder

SIZES = [(40, 48), (90, 33), (32, 32), (37, 37), (200, 150)]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A data set of JPEG and PNG files of several sizes, three classes."""
    return shared(tmp_path_factory, "photographs", _write_photographs)


def _write_photographs(root):
    for split, count in (("train", 5), ("val", 4)):
        for seed, name in enumerate(("ant", "bee", "gnu")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                kind = ("JPEG", "PNG")[number % 2]
                image = smooth_image(*SIZES[number], 10 * seed + number + 100 * (split == "val"))
                (folder / f"{number}.{kind.lower()}").write_bytes(encode(image, kind))
    return root


@pytest.fixture(scope="session")
def run_dir(photographs, tmp_path_factory):
    options = {"dataset": "folder", "data_dir": str(photographs), "augmentation": "none"}
    sizes = {"image_size": 32, "global_batch_size": 8, "depth": 8, "train_steps": 3}

    def make(folder):
        path = folder / "run"
        rest = {"eval_epochs": 100, "precision": "float32"}
        run(TrainConfig(run_dir=str(path), **options, **sizes, **rest))
        return path

    return shared(tmp_path_factory, "prediction_run", make)


@pytest.fixture(scope="session")
def models(run_dir, tmp_path_factory):
    """Paths by kind: run, keras, saved_model, float32 and int8."""
    return shared(tmp_path_factory, "prediction_models", lambda root: _write_models(root, run_dir))


def _write_models(root, run_dir):
    keras.config.set_dtype_policy("float32")
    model, (_, info) = load_run(str(run_dir)), RunFolder(run_dir).read()
    model.save(root / "net.keras")
    graph = rewriting.rewrite(network.trace(model, info.image_shape))[-1].graph
    saved_model.write(graph, info.preprocessing, root / "1")
    images = np.stack([smooth_image(32, 32, seed) for seed in range(4)])
    written = tflite.write(
        graph,
        info.preprocessing,
        root / "lite",
        "net",
        ("float32", "int8"),
        int8.Images(images, images),
    )
    assert not written.impossible
    return {
        "run": run_dir,
        "keras": root / "net.keras",
        "saved_model": root / "1",
        "float32": root / "lite" / "float32.tflite",
        "int8": root / "lite" / "int8.tflite",
    }


@pytest.fixture
def images(tmp_path):
    """Paths of 11 images, each of another colour."""
    return encode_all(tmp_path / "images", 11)
