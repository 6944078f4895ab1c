"""Nets of timm, torchvision and akamaster compute here what they compute in PyTorch."""

import importlib.util
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_preact.models.foreign import convert, write_safetensors

SCRIPT = pathlib.Path(__file__).with_name("torch_nets.py")
TIMM = ("resnetv2_18", "resnetv2_34", "resnetv2_50", "resnetv2_101", "resnetv2_152")
TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
CIFAR = ("cifar20_A", "cifar20_B", "cifar32_A", "cifar44_A", "cifar56_A", "cifar110_A")
QUICK = ("resnetv2_18", "resnetv2_50", "resnet18", "cifar20_A", "cifar20_B")


def cases(names):
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in names
    ]


def in_torch(*arguments, needs="torch"):
    """Runs `torch_nets`; skips where PyTorch or the package is not installed."""
    for package in ("torch", needs):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; see requirements-torch.txt")
    done = subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


def check_logits(network, path):
    with np.load(path) as file:
        images, expected = file["images"], file["logits"]
    assert 0.5 < np.abs(expected).max() < 50
    np.testing.assert_allclose(network(images).numpy(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", cases(TIMM))
def test_a_net_of_timm_and_what_we_write_of_it_give_its_logits(name, tmp_path, capsys):
    in_torch("make", name, "64,75", tmp_path, needs="timm")
    network = convert(tmp_path / "net.safetensors")
    assert network.arguments["depth"] == int(name.removeprefix("resnetv2_"))
    assert " 0 unused, 0 missing" in capsys.readouterr().out
    for size in (64, 75):
        check_logits(network, tmp_path / f"logits{size}.npz")
    # And back: timm loads our file strictly, every name known and none missing.
    ours = tmp_path / "ours.safetensors"
    write_safetensors(network, ours)
    in_torch("load", name, ours, tmp_path)
    check_logits(network, tmp_path / "loaded.npz")
    again = convert(ours)
    assert (again.arguments, again.preprocessing) == (network.arguments, network.preprocessing)
    for mine, first in zip(again.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, first)


@pytest.mark.parametrize("name", cases(TORCHVISION))
def test_a_net_of_torchvision_gives_its_logits(name, tmp_path):
    in_torch("make", name, "64,75", tmp_path, needs="torchvision")
    network = convert(tmp_path / "net.pth")
    assert network.arguments["unit"] == "original"
    for size in (64, 75):
        check_logits(network, tmp_path / f"logits{size}.npz")


@pytest.mark.parametrize("name", cases(CIFAR))
def test_a_cifar_net_gives_its_logits_from_every_kind_of_file(name, tmp_path):
    in_torch("make", name, "32,33", tmp_path)
    networks = [convert(tmp_path / f"net.{end}") for end in ("pth", "npz", "safetensors")]
    for size in (32, 33):
        check_logits(networks[0], tmp_path / f"logits{size}.npz")
    assert networks[0].preprocessing.image_shape == (32, 32, 3)
    for other in networks[1:]:
        for mine, first in zip(other.get_weights(), networks[0].get_weights(), strict=True):
            np.testing.assert_array_equal(mine, first)
