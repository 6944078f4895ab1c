import importlib.metadata
import os
import tomllib

import pytest

from keras_preact.doctor import host


def versions(**installed):
    def version(name):
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    return version


@pytest.mark.parametrize(
    ("found", "bounds", "expected"),
    [
        ("2.21.0", ">=2.21,<2.22", True),
        ("2.21", ">=2.21.0", True),
        ("2.22.0rc1", ">=2.21,<2.22", False),
        ("2.20.1", ">=2.21,<2.22", False),
        ("10.0", ">=9.24", True),
        ("2.4.6", ">=2", True),
        ("1.26.4", ">=2", False),
        ("3.1", "==3.1.0", True),
        ("3.1", "!=3.1", False),
        ("7", "", True),
    ],
)
def test_a_version_lies_within_bounds_as_pip_reads_them(found, bounds, expected):
    assert host.in_range(found, bounds) is expected


def test_packages_out_of_range_and_missing_ones_are_lines_with_their_install():
    wanted = ["tensorflow>=2.21,<2.22", "etils[epath]>=1.15", "tqdm>=4.70", "numpy>=2"]
    wanted.append("absl-py>=2.5")
    lines = {
        line.subject: line
        for line in host.package_lines(
            lambda: wanted, versions(tensorflow="2.20.0", etils="1.15", numpy="2")
        )
    }
    assert lines["tensorflow"].finding == "2.20.0, which is not >=2.21,<2.22"
    assert lines["tensorflow"].advice == 'pip install "tensorflow>=2.21,<2.22"'
    assert lines["packages missing"].finding == "tqdm, absl-py"
    assert lines["packages missing"].advice == 'pip install "tqdm>=4.70" "absl-py>=2.5"'
    assert lines["packages in range"].finding == "etils 1.15, numpy 2"
    assert lines["packages in range"].advice is None


def test_the_requirements_are_those_of_pyproject(monkeypatch):
    in_clone = host.requirements()
    assert "keras>=3.15,<3.16" in in_clone and "tensorboard>=2.21" in in_clone
    project = tomllib.loads(host._PYPROJECT.read_text())["project"]
    # As pip writes them into the metadata of an installed package.
    metadata = list(project["dependencies"])
    for extra, needs in project["optional-dependencies"].items():
        metadata += [f'{need}; extra == "{extra}"' for need in needs]
    monkeypatch.setattr(host, "_PYPROJECT", host._PYPROJECT / "missing")
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: metadata)
    assert [need.partition(";")[0] for need in host.requirements()] == in_clone


@pytest.fixture
def system(tmp_path):
    """A system with 16 GiB available, in which a test may replace files."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"SwapTotal: 0 kB\nMemAvailable: {2**24} kB\n")
    return root


def test_a_machine_with_room_is_fine(system, tmp_path):
    lines = {line.subject: line for line in host.machine_lines(tmp_path, system)}
    assert lines.keys() == {"processor", "memory", "disk"}
    assert "16 GiB of the machine available" in lines["memory"].finding


def test_little_memory_is_to_be_freed(system):
    (system / "proc/meminfo").write_text("SwapTotal: 0 kB\nMemAvailable: 1000000 kB\n")
    assert "free some memory" in host._memory_line(system).advice


def test_a_container_says_how_little_it_may_use(system, tmp_path, monkeypatch):
    monkeypatch.setattr(host.machine, "cores", lambda: 64)
    (system / "sys/fs/cgroup").mkdir(parents=True)
    (system / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")
    processor, *_ = host.machine_lines(tmp_path, system)
    assert "64 cores, of which its container may use the time of 1.5" in processor.finding


def test_a_disk_that_is_full_read_only_or_gone_is_said(tmp_path, monkeypatch):
    assert "not told" in host._disk_line(tmp_path / "gone").finding
    usage = host.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(host.shutil, "disk_usage", lambda folder: usage._replace(free=2**20))
    assert host._disk_line(tmp_path).advice.startswith("free some")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "--run_dir" in host._disk_line(tmp_path).advice
