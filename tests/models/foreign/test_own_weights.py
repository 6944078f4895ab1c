"""Weights of our own networks: wrong pairings are refused, though all shapes agree."""

import functools
import json
import zipfile

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import keras_preact
from keras_preact.layers import ConstantScaling, Convolution, Preprocessing, ResidualUnit
from keras_preact.models.foreign import convert, timm_name, write_safetensors

SMALL = {"depth": 11, "block": "bottleneck", "input_shape": (16, 16, 3), "classes": 10}
PREPROCESSING = Preprocessing(
    (16, 16, 3), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), 1.25, "bicubic", tuple("abcdefghij")
)


def build(**changes):
    return keras_preact.ResNetV2(**{**SMALL, **changes})


def images():
    return np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")


def shapes(model):
    return sorted(tuple(v.shape) for v in model.variables)


def save(model, path):
    write_safetensors(model, path) if path.suffix == ".safetensors" else model.save(path)
    return path


def of_factory(**arguments):
    """A net whose units are made by hand, with the stride elsewhere, for instance."""
    unit = functools.partial(
        ResidualUnit, block="bottleneck", projection="convolution", **arguments
    )
    return keras_preact.ResNetV2(11, block="bottleneck", unit=unit, input_shape=(16, 16, 3))


@pytest.fixture(scope="module")
def network():
    model = build()
    for variable in model.variables:
        variable.assign(np.random.default_rng(1).uniform(0.5, 1, variable.shape))
    model.preprocessing = PREPROCESSING
    return model


@pytest.mark.parametrize("end", ["keras", "safetensors"])
def test_a_network_comes_back_whole(network, end, tmp_path, capsys):
    path = save(network, tmp_path / f"net.{end}")
    again = convert(path)
    assert isinstance(again, keras_preact.models.Network)
    assert (again.arguments, again.preprocessing) == (network.arguments, PREPROCESSING)
    np.testing.assert_array_equal(again(images()), network(images()))
    assert ": a network of this package -> " in capsys.readouterr().out


def test_safetensors_say_what_they_hold(network, tmp_path):
    with safe_open(save(network, tmp_path / "net.safetensors"), "numpy") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {v.path for v in network.variables}
    assert (metadata["format"], metadata["names"]) == ("keras_preact", "keras_preact")
    assert json.loads(metadata["arguments"]) == network.arguments
    assert json.loads(metadata["preprocessing"])["resize_ratio"] == 1.25
    assert "keras_preact.convert(PATH)" in metadata["load"]


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"depth": 18, "layout": "timm"}, "resnetv2_18"),
        ({"depth": 18}, None),
        ({"depth": 18, "layout": "timm", "include_top": False}, None),
        ({"depth": 18, "layout": "timm", "unit": "original"}, None),
        ({"depth": 18, "layout": "timm", "shortcut": "dropout"}, None),
        ({"depth": 18, "layout": "timm", "width_multiplier": 0.5}, None),
        ({"depth": 20}, None),
    ],
)
def test_names_are_timms_where_timm_has_the_network(arguments, name, tmp_path):
    arguments = {"input_shape": (None, None, 1), "classes": 3, **arguments}
    model = keras_preact.ResNetV2(**arguments)
    assert timm_name(model) == name
    if name and arguments.get("include_top", True):
        with safe_open(save(model, tmp_path / "net.safetensors"), "numpy") as file:
            assert file.get_slice("head.fc.weight").get_shape() == [3, 512, 1, 1]
            assert file.get_slice("stem.conv.weight").get_shape() == [64, 1, 7, 7]
            load = file.metadata()["load"]
        assert load.startswith("timm.create_model('resnetv2_18', num_classes=3, in_chans=1)")


@pytest.mark.parametrize("end", ["keras", "safetensors"])
@pytest.mark.parametrize(
    ("made", "received", "message"),
    [
        # A stride on the first 1x1 convolution, as the builder's CIFAR nets have, and on the 3x3.
        (
            lambda: of_factory(strided_convolution=2),
            lambda path: build(weights=path),
            "stage2_unit1 has strided_convolution=2; in this net it has strided_convolution=1",
        ),
        (
            build,
            lambda path: build(layout="timm", shortcut=ConstantScaling(), weights=path),
            "stage1_unit1 has shortcut=",
        ),
        (
            lambda: build(block="basic", depth=14, layout="paper"),
            lambda path: build(block="basic", depth=14, layout="timm", weights=path),
            'stage1_unit1 has shortcut_from="pre-activated"; in this net it has '
            'shortcut_from="raw"',
        ),
        (
            lambda: build(unit="relu_only_preactivation"),
            lambda path: build(unit="original", weights=path),
            "in which stage1_unit1 has order=",
        ),
    ],
    ids=["stride", "shortcut", "first shortcut", "order"],
)
def test_a_wrong_pairing_is_refused(made, received, message, end, tmp_path):
    path = save(made(), tmp_path / f"net.{end}")
    with pytest.raises(ValueError, match="as equal shapes do not tell") as raised:
        received(path)
    assert message in str(raised.value)


def test_the_refused_stride_would_have_fitted_by_its_shapes():
    assert shapes(of_factory(strided_convolution=2)) == shapes(build())


def test_a_stride_on_the_1x1_is_refused_by_an_imagenet_net(tmp_path):
    unit = functools.partial(ResidualUnit, block="bottleneck", strided_convolution=1)
    options = {"input_shape": (32, 32, 3), "classes": 2}
    keras_preact.ResNetV2(50, unit=unit, **options).save(tmp_path / "net.keras")
    message = "stage2_unit1 has strided_convolution=1; in this net it has strided_convolution=2"
    with pytest.raises(ValueError, match=message):
        keras_preact.ResNetV2(50, weights=tmp_path / "net.keras", **options)


@pytest.mark.parametrize("end", ["keras", "safetensors"])
def test_equal_functions_pair_whatever_they_are_called(network, end, tmp_path):
    path = save(network, tmp_path / f"net.{end}")
    # Bottleneck nets begin with a projection, which makes both layouts one.
    for arguments in ({"layout": "timm"}, {"stochastic_depth_rate": 0.2}):
        again = build(weights=path, **arguments)
        np.testing.assert_array_equal(again(images()), network(images()))


@pytest.mark.parametrize("end", ["keras", "safetensors", "weights.h5"])
def test_another_number_of_classes_is_said_in_one_line(network, end, tmp_path):
    path = tmp_path / f"net.{end}"
    network.save_weights(path) if end == "weights.h5" else save(network, path)
    with pytest.raises(ValueError, match="weights has 10 classes, this net 100: pass") as raised:
        build(classes=100, weights=path)
    assert "\n" not in str(raised.value)
    features = build(include_top=False, weights=path)
    np.testing.assert_array_equal(features.get_weights()[0], network.get_weights()[0])


def test_weights_without_a_record_need_the_depth(network, tmp_path):
    path = tmp_path / "net.weights.h5"
    network.save_weights(path)
    with pytest.raises(ValueError, match="depth must be given, and any argument"):
        convert(path)
    again = convert(path, depth=11, block="bottleneck")
    np.testing.assert_array_equal(again(images()), network(images()))
    with pytest.raises(ValueError, match=r"Every variable|must have the shape"):
        convert(path, depth=20)


@pytest.mark.parametrize("end", ["keras", "safetensors"])
def test_arguments_that_contradict_the_record_are_refused(network, end, tmp_path):
    path = save(network, tmp_path / f"net.{end}")
    assert convert(path, depth=11, unit="full_preactivation").arguments == network.arguments
    with pytest.raises(ValueError, match=r"layout must be 'paper', as .* records"):
        convert(path, layout="timm")
    with pytest.raises(ValueError, match="format must be 'keras_preact' for"):
        convert(path, format="timm")


def without_records(path):
    """Turns a .keras file into that of an earlier version, which had no records."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config |= {
        "class_name": "Functional",
        "module": "keras.src.models.functional",
        "registered_name": "Functional",
    }
    config["config"] = {
        name: value
        for name, value in config["config"].items()
        if name not in ("arguments", "preprocessing")
    }
    for layer in config["config"]["layers"]:
        for name in ("layout", "dilation_rate", "zero_padded"):
            layer["config"].pop(name, None)
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_an_older_file_is_understood_by_its_layers(network, tmp_path):
    path = save(network, tmp_path / "net.keras")
    without_records(path)
    again = convert(path)
    expected = {**network.arguments, "projection": "convolution"}
    assert (again.arguments, again.preprocessing) == (expected, None)
    np.testing.assert_array_equal(build(weights=path)(images()), network(images()))
    with pytest.raises(ValueError, match="stage1_unit1 has shortcut="):
        build(shortcut=ConstantScaling(), weights=path)


def test_a_network_in_low_precision_comes_back_in_float32(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    save(build(), tmp_path / "net.keras")
    again = convert(tmp_path / "net.keras")
    assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert {layer.dtype_policy.name for layer in again.layers} == {"float32"}
    assert again.get_layer("stage1_unit1").output.dtype == "float32"


def test_nan_in_a_network_of_ours_is_refused(tmp_path):
    model = build()
    model.get_layer("logits").bias.assign(np.full(10, np.nan))
    with pytest.raises(ValueError, match=r"must be finite\. Received: 'logits/bias' with NaN"):
        convert(save(model, tmp_path / "net.keras"))


def test_another_size_of_images_may_be_chosen(network, tmp_path):
    again = convert(save(network, tmp_path / "net.keras"), input_shape=(None, None, 3))
    assert again.input_shape == (None, None, None, 3)
    np.testing.assert_allclose(again(images()), network(images()), rtol=1e-5)


@pytest.mark.parametrize(
    "shortcut",
    ["exclusive_gating", "dropout", Convolution(batch_norm=True)],
    ids=["gating", "dropout", "convolution"],
)
@pytest.mark.parametrize("end", ["keras", "safetensors", "weights.h5"])
def test_every_variable_of_a_shortcut_comes_back(shortcut, end, tmp_path):
    options = {"depth": 8, "block": "basic", "shortcut": shortcut}
    model, path = build(**options, stochastic_depth_rate=0.1), tmp_path / f"net.{end}"
    for variable in model.trainable_variables:
        variable.assign_add(np.full(variable.shape, 0.25))
    model.save_weights(path) if end == "weights.h5" else save(model, path)
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(build(**options, weights=path)(images()), model(images()))
    if end != "weights.h5":
        np.testing.assert_array_equal(convert(path)(images()), model(images()))


@pytest.mark.parametrize(
    ("record", "changes", "message"),
    [
        ("arguments", {"weights": "net.keras"}, "metadata must be one of depth, layout"),
        ("top", {"input_tensor": 1}, "metadata must be one of input_shape"),
        ("arguments", {"shortcut": {"class_name": "Lambda", "config": {}}}, "must hold no code"),
        (
            "arguments",
            {"unit": {"class_name": "Popen", "module": "subprocess", "config": {}}},
            "with 'subprocess.Popen'",
        ),
        ("layers", {"stem_conv": {"class": "Conv2D", "filters": 9}}, "stem_conv has "),
    ],
    ids=["argument", "top", "lambda", "class", "layers"],
)
def test_metadata_of_strangers_are_not_trusted(network, record, changes, message, tmp_path):
    path = save(network, tmp_path / "net.safetensors")
    with safe_open(path, "numpy") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    metadata[record] = json.dumps({**json.loads(metadata[record]), **changes})
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match=message):
        convert(path)


def test_variables_of_any_shape_are_refused_with_their_names(tmp_path):
    np.savez(tmp_path / "net.npz", **{"stem_conv/kernel": np.zeros(3, "float32")})
    with pytest.raises(ValueError, match=r"stem_conv/kernel|input_shape must be"):
        convert(tmp_path / "net.npz", depth=8)
