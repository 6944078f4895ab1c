import os
import subprocess

import pytest

from keras_preact.support import machine


@pytest.fixture
def told(tmp_path):
    """A file that says this of the processor, or is absent."""

    def tell(text):
        path = tmp_path / "cpuinfo"
        if text is not None:
            path.write_text(text)
        return path

    return tell


def test_the_processor_is_that_of_the_first_core(told):
    path = told(
        "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Abacus: 3 (R) \nprocessor\t: 1\n"
        "model name\t: Sliderule\n"
    )
    assert machine.processor(path) == "Abacus: 3 (R)"


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nCPU part\t: 0xd0c\n"])
@pytest.mark.parametrize(("name", "expected"), [("ARMv8", "ARMv8"), ("", "aarch64")])
def test_where_the_system_does_not_tell_it_is_pythons_word(told, monkeypatch, text, name, expected):
    monkeypatch.setattr(machine.platform, "processor", lambda: name)
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.processor(told(text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu sse2 avx512f avx512_bf16 amx_tile\nflags\t\t: fpu\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16 i8mm\n", True),
        ("flags\t\t: fpu sse2 avx512f avx512_vnni\nbugs\t\t: avx512_bf16\n", False),
        ("Features\t: fp asimd\n", False),
        ("processor\t: 0\n", None),
        (None, None),
    ],
)
def test_bfloat16_is_among_the_flags_of_the_processor(told, text, expected):
    assert machine.has_bfloat16(told(text)) is expected


def test_a_gpu_that_tensorflow_does_not_see_needs_its_libraries(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    device, absent = tmp_path / "nvidia0", tmp_path / "libcuda.so.1"
    assert machine.gpu_advice(False, (device, absent)) is None
    device.touch()
    advice = machine.gpu_advice(False, (absent, device))
    assert advice.endswith("pip install -r requirements-gpu.txt") and "\n" not in advice
    assert machine.gpu_advice(True, (device,)) is None
    monkeypatch.setattr(machine, "_GPU_REQUIREMENTS", tmp_path / "requirements-gpu.txt")
    advice = machine.gpu_advice(False, (device,))
    assert advice.endswith('pip install "keras_preact[gpu]"')
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert machine.gpu_advice(False, (device,)) is None


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert machine.cores() == int(subprocess.run(["nproc"], capture_output=True).stdout)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5})
        assert machine.cores() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
    for count, expected in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert machine.cores() == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
    ids=["version2", "unlimited2", "version1", "unlimited1", "none"],
)
def test_the_quota_of_a_container_is_in_cores(tmp_path, files, expected):
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert machine.core_quota(tmp_path) == expected
