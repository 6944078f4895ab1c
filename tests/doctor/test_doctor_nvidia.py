"""Machines that the tests play: drivers, libraries and files of a system."""

import ctypes
import json
import pathlib
import subprocess
import sys

import pytest

from keras_preact.doctor import nvidia, probe

BUILD = {"cuda_version": "12.5.1", "cudnn_version": "9", "is_cuda_build": True}
H200 = {"name": "NVIDIA H200", "memory_bytes": 141 * 2**30, "capability": [9, 0]}


class Driver:
    """Stands in for libcuda.so.1 with one GPU, or with an error."""

    def __init__(self, error=0, cuda=12080, gpu=H200):
        self.error, self.cuda, self.gpu = error, cuda, gpu

    def cuInit(self, flags):  # noqa: N802 - NVIDIA's names
        return self.error

    def cuDriverGetVersion(self, version):  # noqa: N802
        version._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = 1
        return 0

    def cuDeviceGet(self, device, index):  # noqa: N802
        return 0

    def cuDeviceGetName(self, name, letters, device):  # noqa: N802
        name.value = self.gpu["name"].encode()

    def cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        size._obj.value = self.gpu["memory_bytes"]

    def cuDeviceGetAttribute(self, value, attribute, device):  # noqa: N802
        value._obj.value = self.gpu["capability"][{75: 0, 76: 1}[attribute]]


class CuDnn:
    def __init__(self, version):
        self.cudnnGetVersion = ctypes.CFUNCTYPE(ctypes.c_size_t)(lambda: version)


def loader(missing=(), driver=None, cudnn=92400):
    """Opens every library by its name alone but for the missing ones."""

    def load(path):
        if "/" in path or path in missing:
            raise OSError(path)
        if path == "libcuda.so.1":
            return driver or Driver()
        return CuDnn(cudnn) if path.startswith("libcudnn") else object()

    return load


@pytest.fixture
def system(tmp_path):
    """The files of a system with one NVIDIA GPU and its driver."""
    device = tmp_path / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build\n"
        "GCC version:  gcc version 11.4.0\n"
    )
    ptxas = tmp_path / "packages/nvidia/cuda_nvcc/bin/ptxas"
    ptxas.parent.mkdir(parents=True)
    ptxas.touch(mode=0o755)
    return tmp_path


def report(system, environment=None, build=BUILD, **options):
    """The lines of a machine, by their subjects."""
    facts = probe.probe(loader(**options), system, system / "packages", build)
    # As they come from another process.
    facts = json.loads(json.dumps(facts))
    return {line.subject: line for line in nvidia.lines(facts, environment or {})}


def test_a_machine_where_all_is_found_is_fine(system):
    lines = report(system)
    assert all(line.advice is None for line in lines.values())
    assert lines["NVIDIA driver"].finding == "570.86.15, for CUDA 12.8"
    assert lines["GPU:0"].finding == "NVIDIA H200, 141 GiB, compute capability 9.0"
    assert lines["cuDNN"].finding == "9.24.0"
    assert "12.5.1" in lines["CUDA libraries"].finding


def test_without_a_gpu_one_line_says_so(tmp_path):
    lines = report(tmp_path, missing=("libcuda.so.1", "libnvidia-ml.so.1"))
    assert [line.advice for line in lines.values()] == [None]
    assert "none here" in lines["NVIDIA GPU"].finding


def test_missing_libraries_are_named_with_the_command_that_installs_them(system):
    lines = report(system, missing=("libcudnn.so.9", "libcufft.so.11"))
    assert lines["CUDA libraries"].finding == "not found: libcufft.so.11, libcudnn.so.9"
    assert lines["CUDA libraries"].advice == "pip install -r requirements-gpu.txt"
    assert "cuDNN" not in lines


def test_nccl_is_needed_by_several_gpus_alone(system):
    assert report(system, missing=(probe.NCCL,))["CUDA libraries"].advice is None
    facts = probe.probe(loader((probe.NCCL,)), system, system / "packages", BUILD)
    facts["driver"]["gpus"] *= 2
    lines = {line.subject: line for line in nvidia.lines(facts, {})}
    assert probe.NCCL in lines["CUDA libraries"].finding and lines["CUDA libraries"].advice


@pytest.mark.parametrize(
    ("number", "version", "fine"),
    [
        (90300, "9.3.0", False),
        (90501, "9.5.1", False),
        (91002, "9.10.2", True),
        (92400, "9.24.0", True),
        (8907, "8.9.7", False),
    ],
)
def test_a_cudnn_that_aborts_xla_is_to_be_replaced(system, number, version, fine):
    line = report(system, cudnn=number)["cuDNN"]
    assert line.finding.startswith(version)
    assert (line.advice is None) is fine
    assert fine or line.advice == 'pip install "nvidia-cudnn-cu12>=9.24"'


def test_the_missing_library_that_hides_every_gpu_is_named(system):
    line = report(system, missing=("libnvidia-ml.so.1",))["NVML"]
    assert "silently sees no GPU" in line.finding and "utility" in line.advice


def test_a_gpu_without_a_driver_needs_one(system):
    (system / "dev/nvidia0").unlink()
    (system / "proc/driver/nvidia/version").unlink()
    line = report(system, missing=("libcuda.so.1", "libnvidia-ml.so.1"))["NVIDIA driver"]
    assert line.finding == "libcuda.so.1 is not found, kernel module not loaded"
    assert "--gpus=all" in line.advice


@pytest.mark.parametrize(
    ("error", "advice"),
    [(802, "fabricmanager"), (803, "restart"), (34, "LD_LIBRARY_PATH"), (12345, "nvidia-smi")],
)
def test_a_driver_that_fails_is_told_with_what_helps(system, error, advice):
    line = report(system, driver=Driver(error))["NVIDIA driver"]
    assert f"cuInit fails with {error}" in line.finding and advice in line.advice


def test_an_older_driver_runs_machine_code_but_no_newer_ptx(system):
    ampere = {**H200, "capability": [8, 0]}
    assert report(system, driver=Driver(cuda=12020, gpu=ampere))["NVIDIA driver"].advice is None
    assert "PTX" in report(system, driver=Driver(cuda=12020))["NVIDIA driver"].advice
    assert "12.5" in report(system, driver=Driver(cuda=11040, gpu=ampere))["NVIDIA driver"].advice


@pytest.mark.parametrize(
    ("capability", "words"), [([12, 0], "--xla=off"), ([5, 2], "--devices=cpu"), ([8, 9], None)]
)
def test_gpus_too_new_and_too_old_are_told_apart(system, capability, words):
    line = report(system, driver=Driver(gpu={**H200, "capability": capability}))["GPU:0"]
    assert line.advice is None if words is None else words in line.advice


@pytest.mark.parametrize("value", ["", "-1"])
def test_hidden_gpus_are_told(system, value):
    lines = report(system, {"CUDA_VISIBLE_DEVICES": value}, driver=Driver(100))
    assert lines["CUDA_VISIBLE_DEVICES"].advice == "unset CUDA_VISIBLE_DEVICES"
    assert lines["NVIDIA driver"].advice is None
    assert report(system, {"CUDA_VISIBLE_DEVICES": "0"})["CUDA_VISIBLE_DEVICES"].advice is None


def test_a_tensorflow_without_cuda_is_to_be_replaced(system):
    line = report(system, build={"is_cuda_build": False})["TensorFlow's build"]
    assert "tensorflow-cpu" in line.advice


def test_without_tensorflow_nothing_is_said_of_its_libraries(system):
    assert not {"CUDA libraries", "TensorFlow's build"} & report(system, build={}).keys()


def test_libraries_of_pip_are_found_where_tensorflow_looks(system):
    path = system / "packages/nvidia/cudnn/lib/libcudnn.so.9"
    path.parent.mkdir(parents=True)
    path.touch()
    opened = []

    def load(name):
        opened.append(name)
        return CuDnn(92400)

    assert probe._find(load, system / "packages", "libcudnn.so.9")[0] == str(path)
    assert opened == [str(path)]


def test_a_probe_that_failed_is_a_line():
    [line] = nvidia.lines({"error": "the process was ended by SIGSEGV"}, {})
    assert "SIGSEGV" in line.finding and "nvidia-smi" in line.advice


def test_the_probe_needs_the_standard_library_alone(tmp_path):
    done = subprocess.run(
        [sys.executable, "-S", "-P", probe.__file__],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["build"] == {} and facts["libraries"] == {}


def test_tensorflows_build_is_read_from_its_file():
    import tensorflow as tf

    packages = pathlib.Path(tf.__file__).parents[1]
    assert probe._build(packages) == dict(tf.sysconfig.get_build_info())
    assert "libcudnn.so.9" in probe.library_names(probe._build(packages))
