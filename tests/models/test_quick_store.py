"""Files that are written and read quickly are those of Keras."""

import h5py
import keras
import numpy as np
import pytest

import keras_preact
from keras_preact.models import network


def made(seed, **arguments):
    keras.utils.set_random_seed(seed)
    options = {"depth": 8, "input_shape": (8, 8, 3), "shortcut": "dropout"} | arguments
    return keras_preact.ResNetV2(**options)


def all_equal(one, other):
    return all(
        np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True)
    )


@pytest.fixture
def keras_store(monkeypatch):
    """Makes Keras read and write without help."""

    def use():
        monkeypatch.setattr(network.QuickStore, "take_over", lambda store: None)

    return use


def contents(path):
    found = {}

    def add(name, item):
        is_array = isinstance(item, h5py.Dataset)
        values = (item.dtype, item.shape, item[()].tobytes()) if is_array else None
        found[name] = (values, dict(item.attrs))

    with h5py.File(path) as file:
        file.visititems(add)
    return found


def test_the_same_file_is_written(tmp_path, keras_store):
    model = made(1)
    model.save_weights(tmp_path / "quick.weights.h5")
    keras_store()
    model.save_weights(tmp_path / "keras.weights.h5")
    expected = contents(tmp_path / "keras.weights.h5")
    assert len(expected) > 50
    assert contents(tmp_path / "quick.weights.h5") == expected


@pytest.mark.parametrize("name", ["net.keras", "net.weights.h5"])
def test_keras_reads_what_is_written_quickly_and_the_reverse(name, tmp_path, keras_store):
    def save(model, path):
        model.save(path) if name == "net.keras" else model.save_weights(path)

    def load(path):
        if name == "net.keras":
            return keras.models.load_model(path)
        model = made(2)
        model.load_weights(path)
        return model

    model = made(1)
    save(model, tmp_path / name)
    assert all_equal(load(tmp_path / name), model)
    keras_store()
    assert all_equal(load(tmp_path / name), model)
    model = made(3)
    save(model, tmp_path / name)
    assert all_equal(load(tmp_path / name), model)


def test_what_keras_wrote_is_read_quickly(tmp_path, monkeypatch):
    model = made(1)
    with monkeypatch.context() as patched:
        patched.setattr(network.QuickStore, "take_over", lambda store: None)
        model.save_weights(tmp_path / "net.weights.h5")
    other = made(2)
    other.load_weights(tmp_path / "net.weights.h5")
    assert all_equal(other, model)


def test_values_in_bfloat16_are_kept(tmp_path):
    keras.config.set_dtype_policy("bfloat16")
    try:
        model, other = made(1), made(2)
    finally:
        keras.config.set_dtype_policy("float32")
    assert "bfloat16" in {v.dtype for v in model.variables}
    model.save_weights(tmp_path / "net.weights.h5")
    other.load_weights(tmp_path / "net.weights.h5")
    assert all_equal(other, model)


def edited(tmp_path, edit):
    """Path of a file of weights after a change to the kernel of its stem."""
    path = tmp_path / "net.weights.h5"
    made(1).save_weights(path)
    with h5py.File(path, "r+") as file:
        edit(file["layers/conv2d/vars"], tmp_path)
    return path


def external(group, folder):
    values = group["0"][()]
    values.tofile(folder / "elsewhere.raw")
    del group["0"]
    file = [(str(folder / "elsewhere.raw"), 0, values.nbytes)]
    group.create_dataset("0", values.shape, values.dtype, external=file)


def soft_link(group, folder):
    del group["0"]
    group["0"] = h5py.SoftLink("/layers/dense/vars/0")


def external_link(group, folder):
    del group["0"]
    group["0"] = h5py.ExternalLink(str(folder / "other.h5"), "/layers/dense/vars/0")


@pytest.mark.parametrize("edit", [external, soft_link, external_link])
def test_what_keras_refuses_is_refused(edit, tmp_path):
    with pytest.raises(ValueError, match="Not allowed"):
        made(2).load_weights(edited(tmp_path, edit))


def test_compressed_values_are_read(tmp_path):
    def compress(group, folder):
        values = group["0"][()]
        del group["0"]
        group.create_dataset("0", data=values, compression="gzip")

    model = made(2)
    model.load_weights(edited(tmp_path, compress))
    assert all_equal(model, made(1))


@pytest.mark.parametrize("width", [1.0, 2.0])
def test_weights_of_another_shape_are_refused_and_may_be_skipped(width, tmp_path):
    path = tmp_path / "net.weights.h5"
    made(1, width_multiplier=width).save_weights(path)
    model = made(2, width_multiplier=3.0 - width)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        model.load_weights(path)
    model = made(2, width_multiplier=3.0 - width)
    model.load_weights(path, skip_mismatch=True)
    np.testing.assert_array_equal(model.get_weights()[0], before[0])
