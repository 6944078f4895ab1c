"""Files of weights that are damaged, hostile, or of other networks are refused, and not run."""

import io
import json
import os
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
from foreign_nets import foreign_tensors, write

import keras_preact
from keras_preact.models.foreign import convert, files, load_keras
from keras_preact.models.foreign.recognize import recognize


@pytest.fixture(scope="module")
def cifar():
    return foreign_tensors("akamaster", 8)


def test_variables_come_back_under_our_names(cifar, tmp_path):
    network = convert(write(tmp_path / "net.safetensors", cifar))
    conv1 = network.get_layer("stage2_unit1").residual_function[0].kernel
    expected = cifar["layer2.0.conv1.weight"]
    for row, column, inside, outside in ((0, 0, 0, 0), (2, 1, 3, 7), (1, 2, 15, 31)):
        assert conv1[row, column, inside, outside] == expected[outside, inside, row, column]
    np.testing.assert_array_equal(network.get_layer("logits").kernel, cifar["linear.weight"].T)


def changed(tensors, name, array):
    return {**tensors, name: array}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: changed(t, "layer1.0.bn1.weight", np.full(16, np.nan, "float32")),
            "must be finite. Received: 'layer1.0.bn1.weight' with NaN in .*net.safetensors",
        ),
        (
            lambda t: changed(t, "linear.bias", np.full(10, np.inf, "float32")),
            "must be finite. Received: 'linear.bias' with infinite values",
        ),
        (
            lambda t: changed(t, "linear.bias", np.arange(10)),
            "of the dtype float32, float16, bfloat16. Received: 'linear.bias' of int64",
        ),
        (
            lambda t: changed(t, "linear.bias", np.zeros(10)),
            "Received: 'linear.bias' of float64",
        ),
        (
            lambda t: changed(t, "layer1.0.conv1.weight", np.zeros((16, 16, 1, 1), "float32")),
            r"layer1.0.conv1.weight must have the shape \(16, 16, 3, 3\), to become "
            r"stage1_unit1/conv1/kernel. Received: \(16, 16, 1, 1\)",
        ),
        (
            lambda t: changed(t, "layer1.0.conv1.weight", np.zeros(16, "float32")),
            r"Received: \(16,\) in",
        ),
        (
            lambda t: changed(t, "layer1.0.se.weight", np.zeros(16, "float32")),
            r"1 unused, 0 missing.\n  unused: layer1.0.se.weight",
        ),
        (
            lambda t: {name: a for name, a in t.items() if name != "layer3.0.bn2.bias"},
            r"0 unused, 1 missing.\n  missing: stage3_unit1/bn2/beta \(layer3.0.bn2.bias\)",
        ),
        (
            lambda t: changed(t, "layer3.1.bn2.bias", np.zeros(16, "float32")),
            "must be those of a published net. Received: basic units, 1, 1, 2 in the stages",
        ),
        (lambda t: {"a": np.zeros(1, "float32")}, "1 variables such as 'a'"),
    ],
    ids=[
        *("nan", "infinity", "integers", "float64", "shape", "rank", "unused", "missing"),
        *("units", "unknown"),
    ],
)
def test_a_mismatch_is_refused_by_name(cifar, change, message, tmp_path):
    path = write(tmp_path / "net.safetensors", change(cifar))
    with pytest.raises(ValueError, match=message):
        convert(path)


def test_half_precision_is_widened(cifar, tmp_path):
    halves = {name: array.astype("float16") for name, array in cifar.items()}
    network = convert(write(tmp_path / "net.safetensors", halves))
    expected = halves["linear.weight"].T.astype("float32")
    np.testing.assert_array_equal(network.get_layer("logits").kernel, expected)


@pytest.mark.parametrize("kind", ["safetensors", "npz", "h5", "keras"])
@pytest.mark.parametrize("share", [0.3, 0.97])
def test_a_truncated_file_is_refused(cifar, kind, share, tmp_path):
    path = tmp_path / f"net.{kind}"
    if kind == "npz":
        np.savez(path, **cifar)
    elif kind == "safetensors":
        write(path, cifar)
    else:
        keras_preact.ResNetV2(8).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=rf"net\.{kind}.*damaged"):
        convert(path)


@pytest.mark.parametrize("content", [b"", b"hello, I am no network", b"PK\x03\x04 nor an archive"])
def test_something_else_is_refused(content, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"net\.safetensors"):
        convert(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path, reason in ((tmp_path / "none.h5", "nothing is there"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"must be a file. Received: .*; {reason}"):
            convert(path)


class Bomb:
    """Would leave a file behind if a pickle of it were loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


def torch_archive(data):
    """An archive as PyTorch writes it, around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", data)
        archive.writestr("net/version", "3\n")
    return file.getvalue()


@pytest.mark.parametrize("form", ["pickle", "archive"])
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_pickle_that_would_run_code_is_refused_without_running_it(form, name, tmp_path):
    data = pickle.dumps({"state_dict": Bomb(tmp_path / "exploded")}, protocol=2)
    path = tmp_path / name
    path.write_bytes(torch_archive(data) if form == "archive" else data)
    # Without PyTorch no pickle is read at all.
    with pytest.raises((ValueError, ModuleNotFoundError), match="two lines convert the file"):
        convert(path)
    assert not (tmp_path / "exploded").exists()


def test_objects_in_an_npz_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "net.npz", a=np.array([Bomb(tmp_path / "exploded")], dtype=object))
    with pytest.raises(ValueError, match=r"net\.npz cannot be read"):
        convert(tmp_path / "net.npz")
    assert not (tmp_path / "exploded").exists()


def lambda_net(path, marker):
    inputs = keras.Input((8, 8, 3))
    x = keras_preact.layers.Conv2D(4, 3, name="stem_conv")(inputs)
    outputs = keras.layers.Lambda(lambda x: (os.mkdir(marker), x)[1], output_shape=(8, 8, 4))(x)
    keras.Model(inputs, outputs).save(path)


@pytest.mark.parametrize("read", [convert, load_keras], ids=["convert", "load_keras"])
def test_a_lambda_layer_is_refused_without_running_it(read, tmp_path):
    path, marker = tmp_path / "net.keras", str(tmp_path / "exploded")
    lambda_net(path, marker)
    os.path.isdir(marker) and os.rmdir(marker)  # building it has run it
    with pytest.raises(ValueError, match=r"must hold no code\. Received: .*class Lambda"):
        read(path)
    assert not os.path.exists(marker)


def test_a_lambda_layer_is_refused_as_weights(tmp_path):
    path, marker = tmp_path / "net.keras", str(tmp_path / "exploded")
    lambda_net(path, marker)
    os.path.isdir(marker) and os.rmdir(marker)
    with pytest.raises(ValueError, match="must hold no code"):
        keras_preact.ResNetV2(8, weights=path)
    assert not os.path.exists(marker)


@pytest.mark.parametrize("module", ["os", "subprocess", "keras_preact.nowhere"])
def test_a_class_from_elsewhere_is_refused_without_importing_it(module, tmp_path):
    path = tmp_path / "net.keras"
    keras_preact.ResNetV2(8).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    config["config"]["layers"][1] |= {"module": module, "registered_name": "Popen"}
    config["config"]["layers"][1]["class_name"] = "Popen"
    members["config.json"] = json.dumps(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=f"or registered before. Received: .*{module}.Popen"):
        load_keras(path)


def test_more_values_than_fit_into_memory_are_refused(tmp_path):
    header = io.BytesIO()
    claims = {"descr": "<f4", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_2_0(header, claims)
    with zipfile.ZipFile(tmp_path / "net.npz", "w") as archive:
        archive.writestr("conv1.weight.npy", header.getvalue())
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = ["conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = ["kernel"]
        file["conv1_conv"].create_dataset("kernel", (2**50,), "float32", chunks=(2**10,))
    for name in ("net.npz", "net.h5"):
        with pytest.raises(ValueError, match=f"{name} cannot be read; .* claims"):
            files.read(tmp_path / name)


def test_links_out_of_an_hdf5_file_are_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.zeros(3, "float32")
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.attrs["layer_names"] = ["conv1_conv"]
        file.create_group("conv1_conv").attrs["weight_names"] = ["kernel"]
        file["conv1_conv"]["kernel"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "data")
    with pytest.raises(ValueError, match="must lie in its own file"):
        files.read(tmp_path / "net.h5")


def of_timm(**more):
    """The names that tell timm's relatives apart; the arrays are stubs."""
    names = ("conv1.weight", "norm1.weight", "norm1.bias", "conv3.weight")
    counts = (3, 4, 6, 3)
    tensors = {
        f"stages.{stage}.blocks.{unit}.{name}": np.zeros(1)
        for stage, count in enumerate(counts)
        for unit in range(count)
        for name in names
    }
    return {**tensors, "stem.conv.weight": np.zeros((64, 3, 7, 7)), **more}


DEEP = {"stem.conv1.weight": np.zeros((32, 3, 3, 3))}
BN = {"stages.0.blocks.0.norm1.running_mean": np.zeros(1)}


@pytest.mark.parametrize(
    ("tensors", "name", "reason"),
    [
        (of_timm(), "resnetv2_50x1_bit", "GroupNorm and standardized convolutions"),
        (
            of_timm(**{"stem.conv.weight": np.zeros((192, 3, 7, 7))}),
            "resnetv2_50x3_bit",
            "GroupNorm",
        ),
        (of_timm(**DEEP), "resnetv2_50d_gn", "GroupNorm"),
        (of_timm(**DEEP, **BN), "resnetv2_50d", "a stem of three convolutions"),
        (
            of_timm(**BN, **{"stem.conv1.weight": np.zeros((24, 3, 3, 3))}),
            "resnetv2_50t",
            "a stem of three",
        ),
        (of_timm(**DEEP, **{"stages.0.blocks.0.norm1.v": 1}), "resnetv2_50d_evos", "EvoNorm"),
        (
            of_timm(**DEEP, **{"stages.0.blocks.0.norm1.tau": 1}),
            "resnetv2_50d_frn",
            "filter response norm",
        ),
    ],
    ids=["bit", "wide bit", "gn", "d", "t", "evos", "frn"],
)
def test_relatives_of_timms_nets_are_refused_by_name(tensors, name, reason):
    with pytest.raises(ValueError, match=rf"a net like {name}, which has {reason}"):
        recognize(tensors, "net.safetensors")


def test_bit_nets_in_googles_files_are_refused():
    tensors = {"resnet/root_block/standardized_conv2d/kernel": np.zeros((7, 7, 3, 64))}
    with pytest.raises(ValueError, match=r"BiT-M-R50x1\.npz, which has GroupNorm"):
        recognize(tensors, "BiT-M-R50x1.npz")


@pytest.mark.parametrize(
    ("shape", "kind"), [((128, 128, 3, 3), "a wide ResNet"), ((128, 4, 3, 3), "a ResNeXt")]
)
def test_wide_and_grouped_nets_of_torchvision_are_refused(shape, kind):
    names = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight")
    tensors = {name: np.zeros(1) for name in (*names, "layer1.0.conv3.weight")}
    with pytest.raises(ValueError, match=f"Received: {kind}"):
        recognize({**tensors, "layer1.0.conv2.weight": np.zeros(shape)}, "net.pth")


def test_bottlenecks_of_cifar_nets_are_refused_as_their_stride_is_unknown(cifar, tmp_path):
    tensors = {**cifar, "layer1.0.conv3.weight": np.zeros((64, 16, 1, 1), "float32")}
    with pytest.raises(ValueError, match="some of which stride on the first 1x1"):
        convert(write(tmp_path / "net.safetensors", tensors))


def test_a_foreign_file_is_taken_as_weights_of_the_same_network_alone(cifar, tmp_path):
    path = write(tmp_path / "net.safetensors", cifar)
    network = keras_preact.ResNet(8, weights=path)
    np.testing.assert_array_equal(network.get_layer("logits").bias, cifar["linear.bias"])
    with pytest.raises(ValueError, match="of a net with unit='original'; this net has unit="):
        keras_preact.ResNetV2(8, weights=path)
    with pytest.raises(ValueError, match="weights has 10 classes, this net 3: pass classes=10"):
        keras_preact.ResNet(8, classes=3, weights=path)
