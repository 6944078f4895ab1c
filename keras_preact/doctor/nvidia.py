"""Judges what `probe` found of NVIDIA's GPUs, driver and libraries."""

import shlex
from collections.abc import Iterator, Mapping

from keras_preact.doctor.lines import Line
from keras_preact.doctor.probe import NCCL
from keras_preact.support import machine, memory

# cuDNN 9.3 to 9.5 abort XLA's convolutions under TensorFlow 2.21, 9.24 does not
# (aws/deep-learning-containers#6418).
_FIRST_CUDNN = (9, 6)
_CUDNN = 'pip install "nvidia-cudnn-cu12>=9.24"'
# XLA does not compile for them up to TensorFlow 2.22 (tensorflow#111958).
_BLACKWELL = 10
# TensorFlow 2.21 has no machine code for these, but PTX, which the driver must know.
_HOPPER = (9, 0)

_NO_DRIVER = (
    "install NVIDIA's driver, https://www.nvidia.com/drivers; in a container: start it with "
    "--gpus=all and NVIDIA's container toolkit"
)
_RESTART = "restart the machine, which loads the installed driver"
# By the results of cuInit.
_ERRORS = {
    34: ("libcuda.so.1 is the stub of a toolkit", "take its folder out of LD_LIBRARY_PATH"),
    100: ("the driver sees no GPU", _NO_DRIVER),
    101: ("CUDA_VISIBLE_DEVICES names a GPU that is not there", "unset CUDA_VISIBLE_DEVICES"),
    802: ("the GPUs' switch is not ready", "sudo systemctl start nvidia-fabricmanager"),
    803: ("library and kernel module of the driver differ", _RESTART),
    804: (
        "this GPU takes no newer libcuda than its driver's",
        "remove the package cuda-compat, or take its folder out of LD_LIBRARY_PATH",
    ),
    999: ("unknown error of the driver", f"look at the output of nvidia-smi; {_RESTART}"),
}


def has_gpu(facts: Mapping) -> bool:
    """Whether there is an NVIDIA GPU, with or without a driver."""
    gpus = (facts["driver"] or {}).get("gpus")
    return bool(gpus or facts["device_files"] or facts["devices"])


def lines(facts: Mapping, environment: Mapping[str, str]) -> Iterator[Line]:
    """The findings, from the bus up to cuDNN; one line where there is no GPU.

    Args:
        facts: as `probe.probe` returns them.
        environment: variables of the process.
    """
    if "error" in facts:
        yield Line("NVIDIA driver", f"asking it fails: {facts['error']}", f"nvidia-smi; {_RESTART}")
        return
    if not has_gpu(facts):
        yield Line("NVIDIA GPU", "none here; everything runs on the processor")
        return
    yield _visibility(environment, facts)
    driver = facts["driver"]
    if driver is None:
        kernel = facts["kernel_driver"]
        finding = f"libcuda.so.1 is not found, kernel module {kernel or 'not loaded'}"
        yield Line("NVIDIA driver", finding, _NO_DRIVER)
    else:
        yield from _driver_lines(facts, driver, environment)
    if facts["nvml"]:
        yield Line("NVML", "libnvidia-ml.so.1 is found")
    else:
        yield Line(
            "NVML",
            "libnvidia-ml.so.1 is not found: without it TensorFlow silently sees no GPU",
            "install all of NVIDIA's driver (on Debian and Ubuntu libnvidia-compute-VERSION); in a "
            "container: NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        )
    yield from _library_lines(facts)


def _visibility(environment, facts):
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return Line("CUDA_VISIBLE_DEVICES", "not set: all GPUs are visible")
    finding = f"{shlex.quote(value)}"
    if value.strip() in ("", "-1"):
        count = facts["devices"] or 1
        hidden = f"{count} GPU" + ("s" if count > 1 else "")
        return Line(
            "CUDA_VISIBLE_DEVICES", f"{finding} hides {hidden}", "unset CUDA_VISIBLE_DEVICES"
        )
    return Line("CUDA_VISIBLE_DEVICES", f"{finding}: only these are visible")


def _driver_lines(facts, driver, environment):
    versions = f"{facts['kernel_driver'] or 'version unknown'}, for CUDA {_cuda(driver['cuda'])}"
    hidden = environment.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if driver["error"] == 100 and hidden:
        yield Line("NVIDIA driver", f"{versions}; its GPUs are hidden")
        return
    if driver["error"]:
        code = driver["error"]
        words, advice = _ERRORS.get(code, _ERRORS[999])
        yield Line("NVIDIA driver", f"{versions}; cuInit fails with {code}: {words}", advice)
        return
    yield Line("NVIDIA driver", versions, _driver_advice(driver, facts["build"]))
    for index, gpu in enumerate(driver["gpus"]):
        yield _gpu_line(index, gpu)


def _driver_advice(driver, build):
    built = _numbers(build.get("cuda_version", ""))
    if not built or not driver["cuda"]:
        return None
    needed = f"update NVIDIA's driver: this TensorFlow is made for CUDA {built[0]}.{built[1]}"
    has = divmod(driver["cuda"] // 10, 100)
    if has < (built[0], 0):
        return needed
    # Within one major version, an older driver runs machine code but compiles no newer PTX.
    newest = max((tuple(gpu["capability"]) for gpu in driver["gpus"]), default=(0, 0))
    if has < built[:2] and newest >= _HOPPER:
        return f"{needed}, and comes as PTX for GPUs of capability 9.0 and above"
    return None


def _gpu_line(index, gpu):
    major, minor = gpu["capability"]
    size = memory.in_words(gpu["memory_bytes"])
    finding = f"{gpu['name']}, {size}, compute capability {major}.{minor}"
    advice = None
    if major >= _BLACKWELL:
        advice = "train with --xla=off: XLA fails on it up to TensorFlow 2.22 (tensorflow#111958)"
    elif (major, minor) < (6, 0):
        advice = "train with --devices=cpu: TensorFlow has no kernels below capability 6.0"
    return Line(f"GPU:{index}", finding, advice)


def _library_lines(facts):
    if not facts["build"].get("is_cuda_build"):
        if facts["build"]:
            advice = 'pip uninstall tensorflow-cpu; pip install "keras_preact[gpu]"'
            yield Line("TensorFlow's build", "has no CUDA in it", advice)
        return
    libraries = facts["libraries"]
    cuda = facts["build"].get("cuda_version")
    if not libraries:
        yield Line("CUDA libraries", f"those of CUDA {cuda} are not known here")
        return
    missing = [name for name, path in libraries.items() if path is None]
    alone = len((facts["driver"] or {}).get("gpus", ())) < 2
    needed = [name for name in missing if name != NCCL or not alone]
    if needed:
        yield Line("CUDA libraries", f"not found: {', '.join(needed)}", machine.gpu_install())
    else:
        yield Line("CUDA libraries", f"all {len(libraries) - len(missing)} found (CUDA {cuda})")
    if facts["ptxas"]:
        yield Line("ptxas", facts["ptxas"])
    else:
        finding = "not found: XLA compiles with the driver's compiler, or not at all"
        yield Line("ptxas", finding, machine.gpu_install())
    if facts["cudnn"]:
        version = _cudnn(facts["cudnn"])
        words = ".".join(map(str, version))
        old = version < _FIRST_CUDNN
        finding = f"{words}, which aborts XLA's convolutions" if old else words
        yield Line("cuDNN", finding, _CUDNN if old else None)


def _cudnn(number):
    """(major, minor, patch) of 92400, as of version 9, or 8907 before."""
    scale = 10_000 if number >= 90_000 else 1_000
    return number // scale, number % scale // 100, number % 100


def _cuda(number):
    return f"{number // 1000}.{number % 1000 // 10}" if number else "unknown"


def _numbers(version):
    return tuple(int(part) for part in version.split(".") if part.isdigit())
