"""One small run, and files of every kind made from its network."""

import keras
import numpy as np
import pytest
from fake_classifier import encode_all
from image_encoding import encode, smooth_image

from keras_preact import load_run
from keras_preact.exporting.formats import saved_model, tflite
from keras_preact.exporting.graph import network, rewriting
from keras_preact.training import TrainConfig, run
from keras_preact.training.run_folder import RunFolder

SIZES = [(40, 48), (90, 33), (32, 32), (37, 37), (200, 150)]


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A data set of JPEG and PNG files of several sizes, three classes."""
    root = tmp_path_factory.mktemp("photographs")
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
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = {"dataset": "folder", "data_dir": str(photographs), "augmentation": "none"}
    sizes = {"image_size": 32, "global_batch_size": 8, "depth": 8, "train_steps": 3}
    run(TrainConfig(run_dir=str(folder), **options, **sizes, eval_epochs=100, precision="float32"))
    return folder


@pytest.fixture(scope="session")
def models(run_dir, tmp_path_factory):
    """Paths by kind: run, keras, saved_model, float32 and int8."""
    root = tmp_path_factory.mktemp("models")
    keras.config.set_dtype_policy("float32")
    model, (_, info) = load_run(str(run_dir)), RunFolder(run_dir).read()
    model.save(root / "net.keras")
    graph = rewriting.rewrite(network.trace(model, info.image_shape))[-1].graph
    saved_model.write(graph, info, root / "1")
    images = np.stack([smooth_image(32, 32, seed) for seed in range(4)])
    assert not tflite.write(graph, info, root / "lite", "net", ("float32", "int8"), images)
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
