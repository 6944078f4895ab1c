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
        take(steps), which returns the seconds that so many steps took, the last
        result's way to the host included.

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
        imagenet = net.stem == "imagenet"
        self.stem_conv = _conv(3, net.stem_filters, *((7, 2) if imagenet else (3, 1)))
        self.stem_pool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        self.units = nn.Sequential()
        channels = net.stem_filters
        for unit in net.units:
            self.units.add_module(unit.name, _Unit(channels, unit))
            channels = unit.channels
        self.head_bn = nn.BatchNorm2d(channels)
        self.logits = nn.Linear(channels, net.classes)

    def forward(self, x):
        x = self.units(self.stem_pool(self.stem_conv(x)))
        x = functional.relu(self.head_bn(x))
        return self.logits(x.mean((2, 3)))


class _Unit(nn.Module):
    def __init__(self, channels, unit):
        super().__init__()
        self.unit = unit
        self.new_channels = unit.channels - channels
        if unit.match == "convolution":
            self.projection_conv = _conv(channels, unit.channels, 1, unit.strides)
        self.preact_bn = nn.BatchNorm2d(channels)
        for number, (filters, kernel_size, strides) in enumerate(unit.convolutions, 1):
            if number > 1:
                self.add_module(f"bn{number}", nn.BatchNorm2d(channels))
            self.add_module(f"conv{number}", _conv(channels, filters, kernel_size, strides))
            channels = filters

    def forward(self, x):
        activated = functional.relu(self.preact_bn(x))
        residual = self.conv1(activated)
        for number in range(2, len(self.unit.convolutions) + 1):
            residual = functional.relu(getattr(self, f"bn{number}")(residual))
            residual = getattr(self, f"conv{number}")(residual)
        return self._match(activated if self.unit.shares_preactivation else x) + residual

    def _match(self, x):
        if self.unit.match == "convolution":
            return self.projection_conv(x)
        if self.unit.match == "zero_pad":
            x = x[:, :, :: self.unit.strides, :: self.unit.strides]
            before = self.new_channels // 2
            return functional.pad(x, (0, 0, 0, 0, before, self.new_channels - before))
        return x


def _conv(channels, filters, kernel_size, strides):
    return nn.Conv2d(channels, filters, kernel_size, strides, kernel_size // 2, bias=False)
