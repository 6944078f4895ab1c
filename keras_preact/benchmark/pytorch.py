"""The same network in PyTorch, as its users run it: channels_last, autocast, eager or compiled.

Imports nothing of this package, so that a process can run it without TensorFlow.
"""

import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from keras_preact.benchmark.job import Job, Net

MEAN, STD = 127.5, 73.6  # of uniform noise in 0 to 255
AUTOCAST = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}


def device() -> tuple[str, float | None]:
    """(name of the GPU, peak of its allocated memory in MiB), or ("CPU", None)."""
    if not torch.cuda.is_available():
        return "CPU", None
    return torch.cuda.get_device_name(0), torch.cuda.max_memory_allocated(0) / 2**20


def prepare(job: "Job") -> Callable[[int], float]:
    """Builds the network and a batch of noise in host memory, pinned where there is a GPU.

    Images are uint8 and normalized where the network runs. torch_compile compiles that and
    the network's forward and backward pass.

    Returns:
        take(steps), which returns the seconds that the steps took, including the last
        result's way to the host.

    Raises:
        ValueError: for mixed_float16 without a GPU.
    """
    place = "cuda" if torch.cuda.is_available() else "cpu"
    if job.precision == "mixed_float16" and place == "cpu":
        raise ValueError("PyTorch's mixed_float16 is for GPUs")
    torch.backends.cudnn.benchmark = True
    model = Normalized(ResNetV2(job.net, job.remat)).to(place, memory_format=torch.channels_last)
    if job.framework == "torch_compile":
        model = torch.compile(model)
    shape = (job.batch_size, 3, job.image_size, job.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(job.net.classes, (job.batch_size,))
    if place == "cuda":
        images, labels = images.pin_memory(), labels.pin_memory()
    step = {"train": _train_step, "inference": _inference_step}[job.mode](model, job, place)

    def take(steps):
        start = time.perf_counter()
        with _in_a_line():
            results = [
                step(images.to(place, non_blocking=True), labels.to(place, non_blocking=True))
                for _ in range(steps)
            ]
        for result in results:
            result.cpu()
        return time.perf_counter() - start

    return take


@contextlib.contextmanager
def _in_a_line():
    """Errors of the compiler as their first line: advice on debugging follows it."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise RuntimeError(f"torch.compile: {first}") from error


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


class Normalized(nn.Module):
    """A network behind the normalization of uint8 images."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, images):
        return self.net((images.float() - MEAN) / STD)


class ResNetV2(nn.Module):
    """From (batch, 3, height, width) to logits (batch, classes), modules named as our layers.

    Args:
        net: the network.
        remat: "unit" to compute every unit twice in training, with PyTorch's checkpoint; "none".
    """

    def __init__(self, net: "Net", remat: str = "none"):
        super().__init__()
        self.net, self.remat = net, remat
        channels = _add_modules(self, net.stem, channels=3)
        self.units = nn.Sequential()
        for unit in net.units:
            self.units.add_module(unit.name, _Unit(unit, channels))
            channels = unit.output_channels
        _add_modules(self, net.head, channels)
        self.logits = nn.Linear(channels, net.classes)

    def forward(self, x):
        x = _run(self, self.net.stem, x)
        for unit in self.units:
            recomputes = self.training and self.remat == "unit"
            x = checkpoint(unit, x, use_reentrant=False) if recomputes else unit(x)
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


def _add_modules(module, operations, channels):
    """Adds convolutions, BN and pooling as modules; returns the channels that leave the last."""
    for operation in operations:
        filters, size, strides = operation.filters, operation.kernel_size, operation.strides
        match operation.kind:
            case "conv":
                layer = nn.Conv2d(channels, filters, size, strides, size // 2, bias=False)
                module.add_module(operation.name, layer)
            case "bn":
                module.add_module(operation.name, nn.BatchNorm2d(channels))
            case "max_pool":
                module.add_module(operation.name, nn.MaxPool2d(size, strides, padding=size // 2))
        channels = filters or channels
    return channels


def _run(module, operations, x):
    for operation in operations:
        match operation.kind:
            case "relu":
                x = functional.relu(x)
            case "zero_pad":
                x = x[:, :, :: operation.strides, :: operation.strides]
                new = operation.filters - x.shape[1]
                x = functional.pad(x, (0, 0, 0, 0, new // 2, new - new // 2))
            case _:
                x = getattr(module, operation.name)(x)
    return x
