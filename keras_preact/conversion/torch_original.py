"""Computes the outputs of an original network in PyTorch. A script; it runs in its own process.

TensorFlow and the compiler that timm and torchvision import do not work in one process. The
folder given holds `order.json`, `variables.npz` and `images.npy`, (batch, channels, height,
width); the script writes `outputs.npy` and prints the version of the framework.
"""

import json
import pathlib
import sys

import numpy as np
import torch
from torch.nn import functional


def timm(order, tensors, images):
    """A resnetv2 net of timm; without classes it returns pooled features."""
    import timm

    options = {"num_classes": order["classes"], "in_chans": images.shape[1]}
    model = timm.create_model(f"resnetv2_{order['depth']}", **options)
    return f"timm {timm.__version__}", _run(model, tensors, images)


def torchvision(order, tensors, images):
    """A net of torchvision."""
    import torchvision

    build = getattr(torchvision.models, f"resnet{order['depth']}")
    model = build(weights=None, num_classes=order["classes"] or 1)
    if not order["classes"]:
        model.fc = torch.nn.Identity()
    return f"torchvision {torchvision.__version__}", _run(model, tensors, images)


def akamaster(order, tensors, images):
    """A CIFAR net: there is no package, so these lines compute it."""

    def conv_bn(x, conv, bn, strides=1):
        kernel = tensors[f"{conv}.weight"]
        x = functional.conv2d(x, kernel, stride=strides, padding=kernel.shape[-1] // 2)
        names = ("running_mean", "running_var", "weight", "bias")
        return functional.batch_norm(x, *(tensors[f"{bn}.{name}"] for name in names))

    def shortcut(x, unit, strides, filters):
        for kind in ("shortcut", "downsample"):
            if f"{unit}.{kind}.0.weight" in tensors:
                return conv_bn(x, f"{unit}.{kind}.0", f"{unit}.{kind}.1", strides)
        new = filters - x.shape[1]
        return functional.pad(x[:, :, ::strides, ::strides], (0, 0, 0, 0, new // 2, new // 2))

    x = functional.relu(conv_bn(images, "conv1", "bn1"))
    for stage, filters in enumerate((16, 32, 64)):
        for number in range((order["depth"] - 2) // 6):
            unit, strides = f"layer{stage + 1}.{number}", 2 if stage and not number else 1
            y = functional.relu(conv_bn(x, f"{unit}.conv1", f"{unit}.bn1", strides))
            y = conv_bn(y, f"{unit}.conv2", f"{unit}.bn2")
            x = functional.relu(y + shortcut(x, unit, strides, filters))
    x = x.mean((2, 3))
    if order["classes"]:
        head = "fc" if "fc.weight" in tensors else "linear"
        x = functional.linear(x, tensors[f"{head}.weight"], tensors[f"{head}.bias"])
    return f"PyTorch {torch.__version__}", x


def _run(model, tensors, images):
    # Strictly: every name must be known, and none be missing.
    model.load_state_dict(tensors)
    return model.eval()(images)


def main(folder: pathlib.Path) -> None:
    """Answers the order in a folder."""
    order = json.loads((folder / "order.json").read_text())
    with np.load(folder / "variables.npz") as file:
        tensors = {name: torch.from_numpy(file[name]) for name in file.files}
    images = torch.from_numpy(np.load(folder / "images.npy"))
    run = {"timm": timm, "torchvision": torchvision, "akamaster": akamaster}[order["format"]]
    with torch.no_grad():
        version, outputs = run(order, tensors, images)
    np.save(folder / "outputs.npy", outputs.numpy())
    print(version)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
