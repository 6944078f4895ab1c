"""Runs and checkpoints become networks."""

import numpy as np
import pytest
import tensorflow as tf
from foreign_nets import foreign_tensors, write

import keras_preact
from keras_preact import training


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    config = training.TrainConfig(
        run_dir=str(folder),
        dataset="digits",
        depth=8,
        train_steps=2,
        checkpoint_steps=1,
        global_batch_size=8,
        precision="float32",
    )
    training.run(config)
    return folder


def same(first, second):
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(mine, other) for mine, other in pairs)


def test_a_run_and_its_checkpoints_become_networks(run_dir, capsys):
    network = keras_preact.convert(run_dir)
    assert "a run of this package -> ResNetV2(depth=8, " in capsys.readouterr().out
    assert (network.arguments["depth"], network.preprocessing.image_shape) == (8, (8, 8, 1))
    last = keras_preact.convert(run_dir / "checkpoints" / "step-2")
    assert same(network, last) and last.preprocessing == network.preprocessing
    assert not same(network, keras_preact.convert(run_dir / "checkpoints" / "step-1"))
    assert same(network, keras_preact.load_run(str(run_dir)))
    [best] = (run_dir / "checkpoints" / "best").glob("step-*")
    assert same(keras_preact.convert(best), keras_preact.convert(run_dir, checkpoint="best"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"depth": 14}, "depth must be 8, as .* records"),
        ({"unit": "original"}, "unit must be 'full_preactivation', as"),
        ({"format": "timm"}, "format must be 'keras_preact' for a run"),
        ({"checkpoint": "last"}, "checkpoint must be one of newest, best"),
        ({"input_shape": (16, 16, 1)}, "input_shape must be None for a run"),
    ],
)
def test_arguments_that_contradict_a_run_are_refused(run_dir, given, message):
    with pytest.raises(ValueError, match=message):
        keras_preact.convert(run_dir, **given)


def test_folders_of_something_else_are_refused(run_dir, tmp_path):
    with pytest.raises(ValueError, match=r"must be that of a run, with its config\.json"):
        keras_preact.convert(tmp_path)
    (tmp_path / "step-3").mkdir()
    with pytest.raises(ValueError, match="must lie in the folder of its run"):
        keras_preact.convert(tmp_path / "step-3")


def test_a_damaged_checkpoint_is_refused(run_dir, tmp_path):
    copy = tmp_path / "run"
    (copy / "checkpoints" / "step-2").mkdir(parents=True)
    (copy / "config.json").write_bytes((run_dir / "config.json").read_bytes())
    for file in (run_dir / "checkpoints" / "step-2").iterdir():
        data = file.read_bytes()
        cut = data[:-9] if "data" in file.name else data
        (copy / "checkpoints" / "step-2" / file.name).write_bytes(cut)
    with pytest.raises(ValueError, match=r"step-2, where its variables\.data"):
        keras_preact.convert(copy / "checkpoints" / "step-2")


def test_a_foreign_file_becomes_a_network_that_plain_keras_loads(tmp_path):
    path = write(tmp_path / "net.safetensors", foreign_tensors("akamaster", 8))
    network = keras_preact.convert(path)
    network.save(tmp_path / "net.keras")
    again = tf.keras.models.load_model(tmp_path / "net.keras")
    assert again.preprocessing == network.preprocessing
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(again(images), network(images))
