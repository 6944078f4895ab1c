import os
import pathlib
import subprocess

import pytest

from keras_preact.support import machine


@pytest.fixture
def told_by_the_system(monkeypatch, tmp_path):
    """Has the system's file say this of its processor, or be absent."""

    def tell(text):
        file = tmp_path / "cpuinfo"
        if text is not None:
            file.write_text(text)
        monkeypatch.setattr(
            machine.pathlib, "Path", lambda path: {"/proc/cpuinfo": pathlib.PosixPath(file)}[path]
        )

    return tell


def test_the_processor_is_that_of_the_first_core(told_by_the_system):
    told_by_the_system(
        "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Abacus: 3 (R) \nprocessor\t: 1\n"
        "model name\t: Sliderule\n"
    )
    assert machine.processor() == "Abacus: 3 (R)"


@pytest.mark.parametrize("text", [None, "", "processor\t: 0\nCPU part\t: 0xd0c\n"])
@pytest.mark.parametrize(("name", "expected"), [("ARMv8", "ARMv8"), ("", "aarch64")])
def test_where_the_system_does_not_tell_it_is_pythons_word(
    told_by_the_system, monkeypatch, text, name, expected
):
    told_by_the_system(text)
    monkeypatch.setattr(machine.platform, "processor", lambda: name)
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.processor() == expected


def test_cores_are_those_that_the_process_may_use(monkeypatch):
    if hasattr(os, "sched_getaffinity"):
        assert machine.cores() == int(subprocess.run(["nproc"], capture_output=True).stdout)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 3, 5})
        assert machine.cores() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
    for count, expected in ((7, 7), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert machine.cores() == expected
