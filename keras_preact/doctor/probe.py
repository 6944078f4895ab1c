"""Reads what the NVIDIA driver and libraries tell, without TensorFlow: python -P probe.py

Prints a line of JSON. Is a process of its own, as a broken driver may end or stop a process, and
as libraries that are loaded here would hide from TensorFlow that it cannot find them. Imports the
standard library alone and is started by its path.
"""

import ctypes
import glob
import importlib.util
import json
import os
import pathlib
import re
import runpy
from collections.abc import Callable

# Attributes of cuDeviceGetAttribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NVIDIA_VENDOR = "0x10de"
_DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers

# The versions in the names of libraries, by the major version of CUDA.
_LIBRARY_VERSIONS = {
    12: {"cudart": 12, "cublas": 12, "cublasLt": 12, "cufft": 11, "cusolver": 11, "cusparse": 12},
    13: {"cudart": 13, "cublas": 13, "cublasLt": 13, "cufft": 12, "cusolver": 12, "cusparse": 12},
}
# Sums over several GPUs.
NCCL = "libnccl.so.2"


def probe(
    load: Callable[[str], ctypes.CDLL] = ctypes.CDLL,
    root: pathlib.Path = pathlib.Path("/"),
    packages: pathlib.Path | None = None,
    build: dict | None = None,
) -> dict:
    """Gathers the facts about NVIDIA's GPUs, driver and libraries.

    Args:
        load: opens a shared library by its name or path; raises OSError.
        root: the folder of dev, proc and sys.
        packages: the folder in which TensorFlow is installed; default: found.
        build: TensorFlow's build info; default: read from its file.

    Returns:
        devices: GPUs on the PCI bus; device_files: whether /dev has one; kernel_driver: version
        of the kernel's module or None; driver: see `_driver`; nvml: whether it was found;
        build: TensorFlow's build info; libraries: for each, its path or None; cudnn: version
        number or None; ptxas: its path or None.
    """
    packages = packages or _packages()
    build = _build(packages) if build is None else build
    facts = {
        "devices": _on_bus(root),
        "device_files": any((root / "dev").glob("nvidia[0-9]*")) or _is_wsl(root),
        "kernel_driver": _kernel_driver(root),
        "driver": _driver(load),
        "nvml": _opened(load, "libnvidia-ml.so.1") is not None,
        "build": build,
        "libraries": {},
        "cudnn": None,
        "ptxas": _ptxas(packages),
    }
    for name in library_names(build):
        path, library = _find(load, packages, name)
        facts["libraries"][name] = path
        if library is not None and name.startswith("libcudnn."):
            facts["cudnn"] = _call(library, "cudnnGetVersion")
    return facts


def library_names(build: dict) -> list[str]:
    """The libraries that TensorFlow opens before it uses a GPU; none for an unknown CUDA."""
    major = str(build.get("cuda_version", "")).partition(".")[0]
    versions = _LIBRARY_VERSIONS.get(int(major) if major.isdigit() else 0, {})
    names = [f"lib{name}.so.{version}" for name, version in versions.items()]
    if names and build.get("cudnn_version"):
        names.append(f"libcudnn.so.{build['cudnn_version']}")
    return [*names, NCCL] if names else []


def _packages():
    spec = importlib.util.find_spec("tensorflow")
    return pathlib.Path(spec.origin).parents[1] if spec and spec.origin else None


def _build(packages):
    # Importing TensorFlow would take seconds, and it might not survive.
    path = packages and packages / "tensorflow/python/platform/build_info.py"
    if not path or not path.exists():
        return {}
    return dict(runpy.run_path(str(path)).get("build_info", {}))


def _on_bus(root):
    count = 0
    for device in (root / "sys/bus/pci/devices").glob("*"):
        if _text(device / "vendor") == _NVIDIA_VENDOR:
            count += _text(device / "class").startswith(_DISPLAY_CLASSES)
    return count


def _is_wsl(root):
    return (root / "usr/lib/wsl/lib/libcuda.so.1").exists()


def _kernel_driver(root):
    told = _text(root / "proc/driver/nvidia/version")
    found = re.search(r"Kernel Module.*?\s([0-9]+(?:\.[0-9]+)+)", told)
    return found[1] if found else None


def _text(path):
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _driver(load):
    """What libcuda tells: None without it; else error (0 for none), cuda (12040 for 12.4), gpus.

    Each GPU has a name, memory_bytes and capability [major, minor].
    """
    library = _opened(load, "libcuda.so.1")
    if library is None:
        return None
    number = ctypes.c_int()
    facts = {"error": library.cuInit(0), "cuda": None, "gpus": []}
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        facts["cuda"] = number.value
    if facts["error"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        facts["gpus"] = [_gpu(library, index) for index in range(number.value)]
    return facts


def _gpu(library, index):
    device, size, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    capability = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        value = ctypes.c_int()
        library.cuDeviceGetAttribute(ctypes.byref(value), attribute, device)
        capability.append(value.value)
    words = name.value.decode(errors="replace")
    return {"name": words, "memory_bytes": size.value, "capability": capability}


def _opened(load, name):
    try:
        return load(name)
    except OSError:
        return None


def _find(load, packages, name):
    """(path, library) of what TensorFlow would open: first pip's, then the system's."""
    of_pip = sorted(glob.glob(f"{packages}/nvidia/*/lib/{name}")) if packages else []
    for path in [*of_pip, name]:
        library = _opened(load, path)
        if library is not None:
            return path, library
    return None, None


def _ptxas(packages):
    """The compiler with which XLA ends; without it XLA uses the driver's."""
    of_pip = sorted(glob.glob(f"{packages}/nvidia/*/bin/ptxas")) if packages else []
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/cuda/bin"]
    paths = [*of_pip, *(os.path.join(folder, "ptxas") for folder in folders if folder)]
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _call(library, function):
    try:
        pointer = getattr(library, function)
        pointer.restype = ctypes.c_size_t
        return pointer()
    except AttributeError:
        return None


if __name__ == "__main__":
    print(f"\n{json.dumps(probe())}")
