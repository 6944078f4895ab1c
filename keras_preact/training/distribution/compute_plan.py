"""The compute plan of a run: devices, strategy, precision and XLA, with reasons."""

import dataclasses
import re

import tensorflow as tf

from keras_preact.models import architectures
from keras_preact.support import tf32
from keras_preact.support.machine import has_bfloat16
from keras_preact.training.config import TrainConfig
from keras_preact.training.distribution.cluster import EXAMPLE, Cluster

# Without loops over units: XLA's compile time grows faster than the number of operations.
DEEPEST_FOR_XLA = 200
# Units of a stage from which a step without XLA starts sooner and takes less memory with loops, as
# measured on a CPU, where it then takes 7 % longer.
FEWEST_FOR_LOOPS = 8

_BFLOAT16_ON_CPU = {
    # An Intel Xeon without AMX was measured at half its speed in float32.
    True: "mixed_bfloat16 may be faster here, as it has bfloat16 instructions",
    False: "it has no bfloat16 instructions, with which mixed_bfloat16 would be faster",
    None: "mixed_bfloat16 is faster where it has bfloat16 instructions",
}


@dataclasses.dataclass(frozen=True)
class Machine:
    """The devices of this process.

    Args:
        gpus: compute capability of each GPU, such as (8, 0); None if unknown.
        has_bfloat16: whether the processor computes in bfloat16; None if unknown.
        tf32: whether GPUs that can multiply float32 in TF32 do so.
    """

    gpus: tuple[tuple[int, int] | None, ...] = ()
    has_bfloat16: bool | None = None
    tf32: bool = True

    @classmethod
    def here(cls) -> "Machine":
        """Returns the machine of this process."""
        details = map(
            tf.config.experimental.get_device_details, tf.config.list_physical_devices("GPU")
        )
        gpus = tuple(gpu.get("compute_capability") for gpu in details)
        return cls(gpus, has_bfloat16(), tf32.is_on())


@dataclasses.dataclass(frozen=True)
class ComputePlan:
    """Devices, strategy, precision and XLA of a run.

    Args:
        strategy: "one_device", "mirrored" or "multi_worker".
        devices: of this process, as in "GPU:0".
        workers: number of processes.
        precision: name of a Keras dtype policy.
        xla: whether XLA compiles the forward and backward pass.
        reasons: for strategy, precision, xla and loops.
        loops: whether equal units in a row are computed in one loop.
    """

    strategy: str
    devices: tuple[str, ...]
    workers: int
    precision: str
    xla: bool
    reasons: dict[str, str]
    loops: bool = True

    @property
    def replicas(self) -> int:
        """Number of replicas in all processes; each takes a part of the global batch."""
        return self.workers * len(self.devices)

    @property
    def compiles_units(self) -> bool:
        """Whether XLA compiles each kind of unit alone, called from loops of TensorFlow's.

        On CPUs a convolution took over ten times as long inside a loop that XLA compiles.
        """
        return self.xla and self.loops and not self.xla_loops

    @property
    def compiles_steps(self) -> bool:
        """Whether XLA compiles all that one replica computes in a step."""
        return self.xla and not self.compiles_units

    @property
    def xla_loops(self) -> bool:
        """Whether XLA compiles loops over steps with the steps in them.

        On CPUs a step of ResNet-20 took five times as long inside such a loop as outside.
        """
        return self.xla and not self.devices[0].startswith("CPU")

    def __str__(self) -> str:
        where = ", ".join(self.devices)
        if self.workers > 1:
            where = f"{self.workers} workers with {where} each"
        return (
            f"Strategy {self.strategy} on {where}: {self.reasons['strategy']}\n"
            f"Precision {self.precision}: {self.reasons['precision']}\n"
            f"XLA {'on' if self.xla else 'off'}: {self.reasons['xla']}"
            + f"\nLoops over equal units {'on' if self.loops else 'off'}: {self.reasons['loops']}"
        )


def make_compute_plan(
    config: TrainConfig, machine: Machine, cluster: Cluster | None = None
) -> ComputePlan:
    """Makes the compute plan from the configuration and the machine.

    Raises:
        ValueError: if this machine cannot do what the configuration asks for.
    """
    devices = _devices(config.devices, machine)
    strategy, why_strategy = _strategy(config, devices, cluster)
    if config.devices is None and strategy == "one_device":
        devices = devices[:1]
    workers = len(cluster.addresses) if strategy == "multi_worker" else 1
    precision, why_precision = _precision(config.precision, devices, machine)
    why_precision += _about_tf32(precision, devices, machine)
    xla, why_xla = _xla(config, devices, workers)
    loops, why_loops = _loops(config, devices, workers, xla)
    plan = ComputePlan(
        strategy,
        devices,
        workers,
        precision,
        xla,
        {
            **{"strategy": why_strategy, "precision": why_precision},
            **{"xla": why_xla, "loops": why_loops},
        },
        loops,
    )
    _check_batch(config, plan)
    return plan


def _devices(wish, machine):
    """Returns the devices for a wish: None, "2", "cpu", "GPU:0,GPU:2" or "CPU:0,CPU:1"."""
    gpus = [f"GPU:{index}" for index in range(len(machine.gpus))]
    if wish is None:
        return tuple(gpus or ["CPU:0"])
    wish = wish.upper().replace(" ", "")
    if wish == "CPU":
        return ("CPU:0",)
    if re.fullmatch(r"[1-9]\d?", wish):
        if not gpus:
            return _parts_of_cpu(int(wish))
        if int(wish) <= len(gpus):
            return tuple(gpus[: int(wish)])
    names = tuple(wish.split(","))
    if all(name in gpus for name in names) and len(set(names)) == len(names):
        return names
    if names == _parts_of_cpu(len(names)):
        return names
    allowed = f"1 to {len(gpus)}, cpu, or of {', '.join(gpus)}" if gpus else "a number, or cpu"
    raise ValueError(
        f"devices must be {allowed}: that is what this machine has. CPU:0,CPU:1 splits its CPU in "
        f"two. Received: devices={wish}"
    )


def _parts_of_cpu(count):
    """A CPU can be split into any number of devices, to try replicas out."""
    return tuple(f"CPU:{index}" for index in range(count))


def _strategy(config, devices, cluster):
    wish = config.strategy
    if wish == "multi_worker" and cluster is None:
        raise ValueError(
            "strategy='multi_worker' needs to know all workers: start it through SLURM, or set "
            f"TF_CONFIG={EXAMPLE}. Received: neither"
        )
    if cluster is not None and wish in ("auto", "multi_worker"):
        if len(devices) > 1 and devices[0].startswith("CPU"):
            raise ValueError(
                "A worker without GPUs has one device: start more workers in place of "
                f"--devices={config.devices}."
            )
        return "multi_worker", "TF_CONFIG or SLURM names several workers"
    if cluster is not None:
        raise ValueError(
            f"TF_CONFIG or SLURM names {len(cluster.addresses)} workers, each of which would train "
            f"alone with strategy={wish!r}. Leave --strategy out, or start one process."
        )
    if wish == "mirrored" and len(devices) < 2:
        raise ValueError(
            "strategy='mirrored' needs two devices or more. Received: "
            f"{', '.join(devices)}. --devices=CPU:0,CPU:1 splits the CPU in two, to try it."
        )
    if wish == "one_device" and config.devices is not None and len(devices) > 1:
        raise ValueError(
            f"strategy='one_device' takes one device. Received: devices={config.devices}"
        )
    if wish != "auto":
        return wish, "as given"
    if len(devices) > 1:
        return "mirrored", f"{len(devices)} devices"
    return "one_device", "one device"


def _precision(wish, devices, machine):
    if wish != "auto":
        slow = wish == "mixed_float16" and devices[0].startswith("CPU")
        return wish, "as given; processors compute it slowly" if slow else "as given"
    if devices[0].startswith("CPU"):
        return "float32", f"CPU; {_BFLOAT16_ON_CPU[machine.has_bfloat16]}"
    capabilities = _capabilities(devices, machine)
    if all(capability and capability >= (8, 0) for capability in capabilities):
        return "mixed_bfloat16", "the GPUs have bfloat16 units"
    if all(capability and capability >= (7, 0) for capability in capabilities):
        return "mixed_float16", "the GPUs have float16 units but none for bfloat16"
    return "float32", "the GPUs are not known to be faster in 16 bits"


def _about_tf32(precision, devices, machine):
    """Says whether TF32 is on, where it matters."""
    if precision != "float32" or devices[0].startswith("CPU"):
        return ""
    capabilities = filter(None, _capabilities(devices, machine))
    if not any(capability >= tf32.FIRST_CAPABILITY for capability in capabilities):
        return ""
    if machine.tf32:
        return "; TF32 on, so they multiply with 10 bits; NVIDIA_TF32_OVERRIDE=0 switches it off"
    return "; TF32 off"


def _capabilities(devices, machine):
    return [machine.gpus[int(device.partition(":")[2])] for device in devices]


def _loops(config, devices, workers, xla):
    """Returns whether equal units are computed in loops, and why."""
    if not _synchronizes(config, devices, workers):
        if config.remat != "none":
            return True, "remat computes units again in loops"
        if config.unit_loops != "auto":
            return config.unit_loops == "on", "as given"
        if xla:
            return True, "XLA compiles each kind of unit once"
        units = _most_units(config)
        if units < FEWEST_FOR_LOOPS:
            return False, f"faster with less than {FEWEST_FOR_LOOPS} units a stage"
        return True, f"{units} units in a stage"
    if config.unit_loops == "on" or config.remat != "none":
        raise ValueError(
            "sync_bn cannot exchange statistics inside loops over units, which unit_loops='on' "
            "and remat ask for. Give one of them. Received: sync_bn=True, "
            f"unit_loops={config.unit_loops!r}, remat={config.remat!r}"
        )
    return False, "sync_bn exchanges statistics between units"


def _synchronizes(config, devices, workers):
    return config.sync_bn and workers * len(devices) > 1


def _most_units(config):
    """Returns the largest number of units in a stage; 0 for a network that is not known."""
    if config.depth is None:
        return 0
    return max(architectures.resolve(config.depth, config.stem, config.block).stage_units)


def _xla(config, devices, workers):
    synchronizes = _synchronizes(config, devices, workers)
    if config.xla == "on" and synchronizes:
        raise ValueError(
            "xla='on' cannot compile the exchange of statistics that sync_bn asks for. Give one "
            "of them. Received: xla='on', sync_bn=True"
        )
    if config.xla != "auto":
        return config.xla == "on", "as given"
    if devices[0].startswith("CPU"):
        return False, "CPU; measured slower than TensorFlow's own kernels"
    if synchronizes:
        return False, "sync_bn exchanges statistics inside the step"
    if config.unit_loops == "off" and (config.depth or 0) > DEEPEST_FOR_XLA:
        return False, f"deeper than {DEEPEST_FOR_XLA} layers, it would compile for too long"
    return True, "GPU"


def _check_batch(config, plan):
    parts = plan.replicas * config.gradient_accumulation_steps
    if config.global_batch_size % parts:
        below = config.global_batch_size // parts * parts
        raise ValueError(
            f"global_batch_size must be a multiple of {parts}, the replicas times "
            f"gradient_accumulation_steps: {f'{below} or ' if below else ''}{below + parts}, "
            f"for example. Received: global_batch_size={config.global_batch_size}"
        )
