"""Nets of timm, torchvision and of this page, with random variables. A script.

It runs in its own process: TensorFlow and the compiler that timm and torchvision import do not
work in one. python torch_nets.py make NAME PIXELS FOLDER writes a net and what it returns;
python torch_nets.py load NAME FILE FOLDER loads a file into a net of timm, strictly.
"""

import pathlib
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

CLASSES = 10


class Block(nn.Module):
    """The basic unit of akamaster's pytorch_resnet_cifar10."""

    def __init__(self, inputs, filters, strides, option):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, filters, 3, strides, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.quarter, self.pads = filters // 4, strides > 1 and option == "A"
        self.shortcut = nn.Sequential()
        if strides > 1 and option == "B":
            conv = nn.Conv2d(inputs, filters, 1, strides, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(filters))

    def forward(self, x):
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.pads:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.quarter, self.quarter))
        return functional.relu(y + self.shortcut(x))


class CifarNet(nn.Module):
    def __init__(self, depth, option):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, filters in enumerate((16, 32, 64), 1):
            units = []
            for number in range((depth - 2) // 6):
                units.append(Block(inputs, filters, 1 + (stage > 1 and number == 0), option))
                inputs = filters
            setattr(self, f"layer{stage}", nn.Sequential(*units))
        self.linear = nn.Linear(64, CLASSES)

    def forward(self, x):
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def build(name):
    if name.startswith("resnetv2"):
        import timm

        return timm.create_model(name, num_classes=CLASSES)
    if name.startswith("cifar"):
        depth, option = name.removeprefix("cifar").split("_")
        return CifarNet(int(depth), option)
    import torchvision

    return getattr(torchvision.models, name)(num_classes=CLASSES)


def randomized(net):
    """The net in inference, every variable random; the signal keeps its order of size."""
    torch.manual_seed(0)
    tensors = net.state_dict()
    last = "bn3.weight" if "layer1.0.bn3.weight" in tensors else "bn2.weight"
    with torch.no_grad():
        for name, tensor in tensors.items():
            if tensor.ndim > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape) * fan_in**-0.5)
            elif name.endswith(("weight", "running_var")):
                tensor.copy_(torch.rand(tensor.shape) + 0.5)
                # Many units add up to a signal of order 1.
                if name.endswith(last):
                    tensor.mul_(0.3)
            elif tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape) * 0.3)
    return net.eval()


def logits(net, pixels):
    images = np.random.default_rng(0).normal(size=(2, 3, pixels, pixels)).astype("float32")
    with torch.no_grad():
        return images, net(torch.from_numpy(images)).numpy()


def make(name, pixels, folder):
    net = randomized(build(name))
    tensors = net.state_dict()
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(folder / "net.npz", **arrays)
    wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": wrapped, "best_prec1": 91.25}, folder / "net.pth")
    from safetensors.torch import save_file

    save_file(tensors, folder / "net.safetensors")
    for size in pixels.split(","):
        images, outputs = logits(net, int(size))
        np.savez(folder / f"logits{size}.npz", images=images.transpose(0, 2, 3, 1), logits=outputs)


def load(name, file, folder):
    from safetensors.torch import load_file

    net = build(name)
    net.load_state_dict(load_file(file), strict=True)
    images, outputs = logits(net.eval(), 64)
    np.savez(folder / "loaded.npz", images=images.transpose(0, 2, 3, 1), logits=outputs)


if __name__ == "__main__":
    what, name, argument, folder = sys.argv[1:]
    {"make": make, "load": load}[what](name, argument, pathlib.Path(folder))
