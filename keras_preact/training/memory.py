"""Lower bounds of the memory that a run needs, computed before anything is built."""

import dataclasses
import math

from keras_preact.data import DatasetInfo
from keras_preact.models import Description, describe
from keras_preact.support import memory
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.compute_plan import ComputePlan

_FLOAT32_BYTES = 4


def check_image_size(config: TrainConfig) -> None:
    """Refuses an image_size at which a single float32 image does not fit into memory.

    Call it before any image is resized.

    Raises:
        ValueError: if the image does not fit.
    """
    if config.image_size is not None:
        memory.check(
            3 * _FLOAT32_BYTES * config.image_size**2,
            f"An image of {config.image_size}x{config.image_size} pixels",
            ["image_size"],
        )


def check(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> None:
    """Refuses a run that cannot fit into the machine's memory; memory of GPUs is not checked.

    Raises:
        ValueError: if a step needs more memory than the machine has.
    """
    trains = config.mode == "train"
    memory.check(
        (training_bytes if trains else evaluation_bytes)(config, info, plan),
        f"A step of {config.global_batch_size:,} images through ResNet-{config.depth}",
        (field.name for field in dataclasses.fields(config)),
    )


def training_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Returns a lower bound of a process's memory in a training step, in bytes.

    It counts the uint8 images of all devices. If the devices are CPUs, it adds for each of
    them weights, BN statistics, the optimizer's moments and averages; and the larger of two
    peaks: the activations of one part of a replica's batch, as the backward pass begins, and the
    gradients, as it ends. Where parts stay frozen, it counts neither of these peaks, but the
    largest output of a unit.
    """
    images = _image_bytes(config, info, plan)
    if not _on_cpu(plan):
        return images
    net = _describe(config, info)
    variables = net.parameters + net.moving_statistics
    copies = 2 if config.ema_decay is not None else 1
    moments = 2 if config.optimizer != "sgd" else 1 if config.momentum else 0
    state = copies * variables + moments * net.parameters
    piece = config.global_batch_size // (plan.replicas * config.gradient_accumulation_steps)
    replicas = len(plan.devices)
    if config.freeze and config.thaw_epoch is None:
        output = piece * _largest_output(net) * _value_bytes(plan)
        return images + replicas * (_FLOAT32_BYTES * state + output)
    activations = piece * net.activations * _value_bytes(plan)
    if plan.xla:
        # XLA may keep the outputs of convolutions alone, and recompute BN and ReLU.
        activations //= 2
    gradients = _FLOAT32_BYTES * net.parameters
    return images + replicas * _FLOAT32_BYTES * state + max(activations, gradients)


def evaluation_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Returns a lower bound of a process's memory in an evaluation step, in bytes."""
    images = _image_bytes(config, info, plan)
    if not _on_cpu(plan):
        return images
    piece = config.global_batch_size // plan.replicas
    return images + inference_bytes(config, info, piece, _value_bytes(plan))


def inference_bytes(
    config: TrainConfig, info: DatasetInfo, images: int, value_bytes: int = _FLOAT32_BYTES
) -> int:
    """Returns the bytes of a network's variables and of the largest output of a unit.

    Args:
        config: gives the architecture.
        info: gives image size and number of classes.
        images: number of images in a batch.
        value_bytes: size of a number in an output.
    """
    net = _describe(config, info)
    variables = net.parameters + net.moving_statistics
    return _FLOAT32_BYTES * variables + images * _largest_output(net) * value_bytes


def _largest_output(net):
    """Numbers in the largest output of a unit, for one image."""
    return max(math.prod(row.output_shape) for row in net.rows)


def _image_bytes(config, info, plan):
    return config.global_batch_size // plan.workers * math.prod(info.image_shape)


def _on_cpu(plan):
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
