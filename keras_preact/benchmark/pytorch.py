"""The same network in PyTorch, eager and channels_last.

Imports nothing of this package, so that a process can run it without TensorFlow.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job, Net

AUTOCAST = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}


def device() -> tuple[str, float | None]:
    """(name of the GPU, peak of its allocated memory in MiB), or ("CPU", None)."""
    if not torch.cuda.is_available():
        return "CPU", None
    return torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated(0) / 2**20


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds the network and a batch of float32 noise in host memory.

    Returns:
        take(steps), which returns the seconds that the steps took, including the last
        result's way to the host.

    Raises:
        ValueError: for mixed_float16 without a GPU.
    """
    place = "cuda" if torch.cuda.is_available() else "cpu"
    if job.precision == "mixed_float16" and place == "cpu":
        raise ValueError("PyTorch's mixed_float16 is for GPUs")
    model = ResNetV2(job.net).to(place, memory_format=torch.channels_last)
    images = torch.randn(job.batch_size, 3, job.image_size, job.image_size)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(job.net.classes, (job.batch_size,))
    if place == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    step = {"train": _train_step, "inference": _inference_step}[job.mode](model, job, place)

    def take(steps):
        start = time.perf_counter()
        results = [
            step(images.to(place, non_blocking=True), labels.to(place, non_blocking=True))
            for _ in range(steps)
        ]
        for result in results:
            result.cpu()
        return time.perf_counter() - start

    return take


def _autocast(job, place):
    dtype = AUTOCAST.get(job.precision)
    return torch.autocast(place, dtype=dtype, enabled=dtype is not None)


def _train_step(model, job, place):
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(place, enabled=job.precision == "mixed_float16")
    model.train()

    def step(images, labels):
        with _autocast(job, place):
            loss = functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss.detach()

    return step


def _inference_step(model, job, place):
    model.eval()

    def step(images, labels):
        with torch.inference_mode(), _autocast(job, place):
            return model(images)

    return step


class ResNetV2(nn.Module):
    """From (batch, 3, height, width) to logits (batch, classes), modules named as our layers."""

    def __init__(self, net: "Net"):
        super().__init__()
        self.net = net
        channels = _add_modules(self, net.stem, channels=3)
        self.units = nn.Sequential()
        for unit in net.units:
            self.units.add_module(unit.name, _Unit(unit, channels))
            channels = unit.output_channels
        _add_modules(self, net.head, channels)
        self.logits = nn.Linear(channels, net.classes)

    def forward(self, x):
        x = self.units(_run(self, self.net.stem, x))
        x = _run(self, self.net.head, x)
        return self.logits(x.mean((2, 3)))


class _Unit(nn.Module):
    def __init__(self, unit, channels):
        super().__init__()
        self.unit = unit
        _add_modules(self, unit.projection, channels)
        channels = _add_modules(self, unit.preactivation + unit.residual, channels)
        _add_modules(self, unit.after_addition, channels)

    def forward(self, x):
        unit = self.unit
        activated = _run(self, unit.preactivation, x)
        residual = _run(self, unit.residual, activated)
        shortcut = _run(self, unit.projection, activated if unit.shares_preactivation else x)
        return _run(self, unit.after_addition, shortcut + residual)


class _ZeroPad(nn.Module):
    def __init__(self, new_channels, strides):
        super().__init__()
        self.new_channels, self.strides = new_channels, strides

    def forward(self, x):
        x = x[:, :, :: self.strides, :: self.strides]
        before = self.new_channels // 2
        return functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))


def _add_modules(module, operations, channels):
    """Adds a module for each operation but ReLU; returns the channels that leave the last."""
    for operation in operations:
        if operation.kind != "relu":
            module.add_module(operation.name, _make_module(operation, channels))
        channels = operation.filters or channels
    return channels


def _make_module(operation, channels):
    filters, strides, size = operation.filters, operation.strides, operation.kernel_size
    match operation.kind:
        case "conv":
            return nn.Conv2d(channels, filters, size, strides, size // 2, bias=False)
        case "bn":
            return nn.BatchNorm2d(channels)
        case "max_pool":
            return nn.MaxPool2d(size, strides, padding=size // 2)
        case "zero_pad":
            return _ZeroPad(filters - channels, strides)


def _run(module, operations, x):
    for operation in operations:
        is_relu = operation.kind == "relu"
        x = functional.relu(x) if is_relu else getattr(module, operation.name)(x)
    return x
