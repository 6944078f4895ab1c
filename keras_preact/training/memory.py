"""The memory that a run needs, computed before anything is built: lower bounds and estimates."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from keras_preact.data import DatasetInfo
from keras_preact.models import Description, TrainingMemory, describe
from keras_preact.models.training_memory import RUNTIME_BYTES, VALUE_BYTES, kept_values
from keras_preact.support import memory
from keras_preact.training import own_units
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution import device_images
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
    fields = {field.name for field in dataclasses.fields(config)}
    memory.check(
        (training_bytes if trains else evaluation_bytes)(config, info, plan),
        _step(config),
        fields if trains and plan.loops and config.remat == "none" else fields - {"remat"},
    )


def warnings(
    config: TrainConfig,
    info: DatasetInfo,
    plan: ComputePlan,
    left: tuple[float | None, str] | None = None,
) -> list[str]:
    """Tells that a step will hardly fit into the memory of a device, and what would fit.

    Estimates, other than `check`, what a step takes rather than the least; and compares it with
    the memory that is left now.

    Args:
        config: of a run that trains.
        info: gives image size and number of classes.
        plan: compute plan.
        left: the bytes that a step can have, None or 0 if unknown, and the name of what has them;
            by default asked of the system or of TensorFlow.

    Returns:
        Lines for people; none where the step fits, the memory of a device is not known, or there
        is no formula: where parts stay frozen, and for units and shortcuts of the user's own.
    """
    if (config.freeze and config.thaw_epoch is None) or own_units.names_code(config):
        return []
    left_bytes, where = left or _left(plan)
    needed_bytes = estimated_bytes(config, info, plan)
    if not left_bytes or needed_bytes <= left_bytes:
        return []
    ways = (
        (given, estimated_bytes(config.updated(**given), info, plan))
        for given in _ways_to_use_less(config, plan)
    )
    given, bytes_then = next(
        ((given, size) for given, size in ways if size <= left_bytes), (None, None)
    )
    to_fit = "take a smaller --depth or --width_multiplier"
    if given:
        flags = " ".join(f"--{name}={value}" for name, value in given.items() if value)
        to_fit = f"give {flags}: about {memory.in_words(bytes_then)}"
    return [
        f"Memory may run out. {_step(config)} takes about {memory.in_words(needed_bytes)}, and "
        f"{where} has {memory.in_words(left_bytes)} left. To fit: {to_fit}"
    ]


def estimated_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Estimates the memory that a training step takes on a device.

    CPUs: on all devices of this process together, which share the machine's memory, beyond what
    the process has taken before it builds the network.

    Args:
        config: of a run that trains.
        info: gives image size and number of classes.
        plan: compute plan; the precision of the configuration wins.
    """
    step = estimate(config, info, plan).total
    return len(plan.devices) * step + RUNTIME_BYTES if _on_cpu(plan) else step


def estimate(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> TrainingMemory:
    """Estimates the parts of a training step's memory on one device."""
    precision = plan.precision if config.precision == "auto" else config.precision
    return _describe(config, info).training_memory(
        max(1, _piece(config, plan)),
        precision,
        config.remat,
        config.remat_units,
        moments=_moments(config),
        averages=config.ema_decay is not None,
        loops=plan.loops,
    )


def _left(plan):
    if _on_cpu(plan):
        return memory.left_bytes(), "the machine"
    return device_images.memory_bytes(plan), "the smallest GPU" if plan.devices[1:] else "the GPU"


def _ways_to_use_less(config, plan) -> Iterator[dict]:
    """Flags that need less memory, those first that change the run least."""
    given = {}
    if config.remat != "auto" and plan.loops:
        given = {"remat": "auto"} | ({"remat_units": None} if config.remat_units else {})
        yield given
    if plan.precision == "float32" and config.precision in ("auto", "float32"):
        yield {**given, "precision": "mixed_bfloat16"}
    parts, batch_size = config.gradient_accumulation_steps, config.global_batch_size
    powers = list(itertools.takewhile(lambda n: n <= batch_size, (2**n for n in range(1, 31))))
    for factor in powers:
        if batch_size % (plan.replicas * parts * factor) == 0:
            yield {**given, "gradient_accumulation_steps": parts * factor}
    for factor in powers:
        if batch_size % factor == 0 and batch_size // factor % (plan.replicas * parts) == 0:
            yield {**given, "global_batch_size": batch_size // factor}


def training_bytes(config: TrainConfig, info: DatasetInfo, plan: ComputePlan) -> int:
    """Returns a lower bound of a process's memory in a training step, in bytes.

    It counts the uint8 images of all devices. If the devices are CPUs, it adds for each of
    them weights, BN statistics, the optimizer's moments and averages; and the larger of two
    peaks: the activations of one part of a replica's batch, as the backward pass begins, and the
    gradients, as it ends. Where loops over units are not switched off, activations are those that
    loops keep. Where parts stay frozen, it counts neither of these peaks, but the largest output
    of a unit.
    """
    images = _image_bytes(config, info, plan)
    if not _on_cpu(plan):
        return images
    if (net := _least(config, info)) is None:
        return images
    variables = net.parameters + net.moving_statistics
    copies = 2 if config.ema_decay is not None else 1
    state = copies * variables + _moments(config) * net.parameters
    piece, replicas = _piece(config, plan), len(plan.devices)
    if config.freeze and config.thaw_epoch is None:
        output = piece * _largest_output(net) * _value_bytes(plan)
        return images + replicas * (_FLOAT32_BYTES * state + output)
    activations = _least_activation_bytes(config, net, plan)
    gradients = _FLOAT32_BYTES * net.parameters
    return images + replicas * _FLOAT32_BYTES * state + max(activations, gradients)


def _least_activation_bytes(config, net, plan):
    """The bytes of one part of a replica's batch as the backward pass begins."""
    loops, again = plan.loops, (config.remat, config.remat_units)
    # The backward pass begins with the last units.
    values = kept_values(net, loops, *again) + net.runs[-1].kept_in_group(*again)
    if plan.xla:
        # Outside of loops XLA may keep the outputs of convolutions alone, and recompute the rest.
        in_loops = sum(
            run.kept_in_all(loops, *again) for run in net.runs if loops and run.units > 1
        )
        values -= (kept_values(net, loops, *again) - in_loops) // 2
    return _piece(config, plan) * _value_bytes(plan) * values


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
    """Returns the bytes of a network's variables and of the largest output of a unit, at least.

    Args:
        config: gives the architecture.
        info: gives image size and number of classes.
        images: number of images in a batch.
        value_bytes: size of a number in an output.
    """
    if (net := _least(config, info)) is None:
        return 0
    variables = net.parameters + net.moving_statistics
    return _FLOAT32_BYTES * variables + images * _largest_output(net) * value_bytes


def _step(config):
    return f"A step of {config.global_batch_size:,} images through ResNet-{config.depth}"


def _piece(config, plan):
    """Images of one part of a replica's batch."""
    return config.global_batch_size // (plan.replicas * config.gradient_accumulation_steps)


def _moments(config):
    return 2 if config.optimizer != "sgd" else 1 if config.momentum else 0


def _largest_output(net):
    """Numbers in the largest output of a unit, for one image."""
    return max(math.prod(row.output_shape) for row in net.rows)


def _image_bytes(config, info, plan):
    return config.global_batch_size // plan.workers * math.prod(info.image_shape)


def _on_cpu(plan):
    return plan.devices[0].startswith("CPU")


def _value_bytes(plan):
    return VALUE_BYTES[plan.precision]


def _least(config: TrainConfig, info: DatasetInfo) -> Description | None:
    """Describes the least that a network can be; None of units from a factory of the user's."""
    if isinstance(own_units.unit(config.unit), own_units.Factory):
        return None
    if own_units.parse(config.shortcut):
        owns_sum = config.make_shortcut().matches_dimensions
        return _describe(config, info, shortcut="none" if owns_sum else "identity")
    return _describe(config, info)


def _describe(config: TrainConfig, info: DatasetInfo, **changes) -> Description:
    return describe(
        config.depth,
        input_shape=info.image_shape,
        classes=info.classes,
        **{**config.architecture(), **changes},
        print_fn=None,
    )
