"""The machine that a program runs on."""

import os
import pathlib
import platform
from collections.abc import Sequence

_CPUINFO = pathlib.Path("/proc/cpuinfo")
# Flags of x86 and of ARM.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
# Device files of a GPU that this process may use, on Linux and under WSL.
_NVIDIA_GPU = (pathlib.Path("/dev/nvidia0"), pathlib.Path("/usr/lib/wsl/lib/libcuda.so.1"))
_GPU_EXTRA = '"keras_preact[gpu]"'
_GPU_REQUIREMENTS = pathlib.Path(__file__).resolve().parents[2] / "requirements-gpu.txt"


def processor(cpuinfo: pathlib.Path = _CPUINFO) -> str:
    """The processor's model, where the system tells, else its architecture.

    Args:
        cpuinfo: the file in which Linux describes the processor.
    """
    return _of_cpu(cpuinfo, "model name") or platform.processor() or platform.machine()


def has_bfloat16(cpuinfo: pathlib.Path = _CPUINFO) -> bool | None:
    """Whether the processor has instructions for bfloat16; None where the system does not tell.

    Args:
        cpuinfo: the file in which Linux describes the processor.
    """
    flags = _of_cpu(cpuinfo, "flags") or _of_cpu(cpuinfo, "Features")
    return bool(_BFLOAT16 & set(flags.split())) if flags else None


def cores() -> int:
    """The number of cores that this process may use."""
    return len(core_numbers())


def core_numbers() -> list[int]:
    """The numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gpus(devices: pathlib.Path = pathlib.Path("/dev")) -> list[str]:
    """The NVIDIA GPUs that this process may use, as in CUDA_VISIBLE_DEVICES.

    Args:
        devices: the folder in which the driver offers them.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [] if "-1" in names else [name for name in names if name]
    numbers = sorted(int(path.name[6:]) for path in devices.glob("nvidia[0-9]*"))
    return list(map(str, numbers))


def core_quota(root: pathlib.Path = pathlib.Path("/")) -> float | None:
    """The cores whose time the container may use, such as 1.5; None where it has no such limit.

    Args:
        root: the folder of sys.
    """
    folder = root / "sys/fs/cgroup"
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu/cpu.cfs_quota_us").read_text()
            period = (folder / "cpu/cpu.cfs_period_us").read_text()
        # "max", or -1 in version 1 of control groups, is no limit.
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def gpu_install() -> str:
    """The command that installs CUDA's libraries for TensorFlow."""
    in_clone = _GPU_REQUIREMENTS.exists()
    return f"pip install {'-r requirements-gpu.txt' if in_clone else _GPU_EXTRA}"


def gpu_advice(sees_gpu: bool, devices: Sequence[pathlib.Path] = _NVIDIA_GPU) -> str | None:
    """Says what to install where there is an NVIDIA GPU that TensorFlow does not see.

    Args:
        sees_gpu: whether TensorFlow sees a GPU.
        devices: files of which one exists where the driver offers a GPU.

    Returns:
        A line for the user; None where there is no such GPU, or CUDA_VISIBLE_DEVICES hides it.
    """
    is_hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if sees_gpu or is_hidden or not any(path.exists() for path in devices):
        return None
    return f"TensorFlow finds no CUDA libraries for the NVIDIA GPU here: {gpu_install()}"


def _of_cpu(cpuinfo, wanted):
    """The entry of the first core under a name; "" where there is none."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == wanted:
            return value.strip()
    return ""
