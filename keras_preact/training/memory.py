"""Lower bounds of the memory that a run needs, known before anything is built."""

import dataclasses
import math

from keras_preact.data import DatasetInfo
from keras_preact.models import Description, describe
from keras_preact.support import memory
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan

_FLOAT32_BYTES = 4


def check_image_size(config: TrainConfig) -> None:
    """Refuses an image_size of which the machine's memory cannot hold a single image.

    To be called before the images are looked at, which are resized as float32.

    Args:
        config: of the run.

    Raises:
        ValueError: if memory cannot hold it.
    """
    if config.image_size is not None:
        memory.check(
            3 * _FLOAT32_BYTES * config.image_size**2,
            f"An image of {config.image_size}x{config.image_size} pixels",
            ["image_size"],
        )


def check(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> None:
    """Refuses a run that the machine's memory surely cannot hold; GPUs say so themselves.

    Args:
        config: of the run.
        info: of its data.
        plan: how it computes.

    Raises:
        ValueError: if a step needs more than there is.
    """
    trains = config.mode == "train"
    memory.check(
        (training_bytes if trains else evaluation_bytes)(config, info, plan),
        f"A step of {config.global_batch_size:,} images through ResNet-{config.depth}",
        (field.name for field in dataclasses.fields(config)),
    )


def training_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Returns a lower bound of the bytes that a process holds at once in a training step.

    The images of its devices, as bytes; where these are parts of the processor, also, for
    each of them, weights, statistics, momentum and averages; and either the activations of
    one part of one replica's batch, as when the backward pass begins, or the gradients, as
    when it ends.

    Args:
        config: of the run.
        info: of its data.
        plan: how it computes.
    """
    images = _image_bytes(config, info, plan)
    if not _on_processor(plan):
        return images
    net = _describe(config, info)
    variables = net.parameters + net.moving_statistics
    copies = 2 if config.ema_decay is not None else 1
    state = copies * variables + (net.parameters if config.momentum else 0)
    piece = config.global_batch_size // (plan.replicas * config.gradient_accumulation_steps)
    activations = piece * net.activations * _value_bytes(plan)
    if plan.xla:
        # It may compute BN and ReLU again, and keep what convolutions return alone.
        activations //= 2
    gradients = _FLOAT32_BYTES * net.parameters
    replicas = len(plan.devices)
    return images + replicas * _FLOAT32_BYTES * state + max(activations, gradients)


def evaluation_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Returns a lower bound of the bytes that a process holds at once in an evaluation step.

    Args:
        config: of the run.
        info: of its data.
        plan: how it computes.
    """
    images = _image_bytes(config, info, plan)
    if not _on_processor(plan):
        return images
    piece = config.global_batch_size // plan.replicas
    return images + inference_bytes(config, info, piece, _value_bytes(plan))


def inference_bytes(
    config: TrainConfig, info: DatasetInfo, images: int, value_bytes: int = _FLOAT32_BYTES
) -> int:
    """Returns the bytes of a network and of the largest output of its units.

    Args:
        config: that the network is built by.
        info: of its data.
        images: in a batch.
        value_bytes: of a number in an output.
    """
    net = _describe(config, info)
    variables = net.parameters + net.moving_statistics
    largest = max(math.prod(row.output_shape) for row in net.rows)
    return _FLOAT32_BYTES * variables + images * largest * value_bytes


def _image_bytes(config, info, plan):
    return config.global_batch_size // plan.workers * math.prod(info.image_shape)


def _on_processor(plan):
    return plan.devices[0].startswith("CPU")


def _value_bytes(plan):
    return _FLOAT32_BYTES if plan.precision == "float32" else _FLOAT32_BYTES // 2


def _describe(config: TrainConfig, info: DatasetInfo) -> Description:
    return describe(
        config.depth,
        input_shape=info.image_shape,
        classes=info.classes,
        **config.architecture(),
        print_fn=None,
    )
