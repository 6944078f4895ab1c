"""The limits of a process's memory, read from a made-up system."""

import os
import resource

import pytest

from keras_preact.support import memory

GIB = 2**30
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 64 GiB without swap and limits; files by path are added to it."""
    sizes = {"SC_PHYS_PAGES": 64 * GIB // PAGE, "SC_PAGE_SIZE": PAGE}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)

    def add(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{text}\n")
        return tmp_path

    return add


def test_without_limits_it_is_the_memory_of_the_machine(machine):
    assert memory.most(machine({})) == (64 * GIB, "memory of the machine")


def test_swap_counts_as_a_run_in_it_would_still_work(machine):
    root = machine({"proc/meminfo": "MemTotal: 1 kB\nSwapTotal:  8388608 kB\nSwapFree: 0 kB"})
    assert memory.most(root)[0] == 72 * GIB


@pytest.mark.parametrize(
    ("cgroup", "files", "limit_gib"),
    [
        # Version 2: the group's own limit, or that of one around it.
        ("0::/a/b", {"a/b/memory.max": 4 * GIB}, 4),
        ("0::/a/b", {"a/b/memory.max": "max", "a/memory.max": 3 * GIB}, 3),
        ("0::/a/b", {"a/b/memory.max": 4 * GIB, "a/memory.max": 3 * GIB}, 3),
        ("0::/a/b", {"a/b/memory.max": "max"}, 64),
        # In a container the path from outside does not exist, and the top is its own group.
        ("0::/docker/1f", {"memory.max": 5 * GIB}, 5),
        ("0::/", {"memory.max": 5 * GIB}, 5),
        # Version 1, alone and beside version 2.
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": 2 * GIB}, 2),
        ("4:memory:/a\n0::/", {"memory/memory.limit_in_bytes": 2 * GIB}, 2),
        ("4:memory:/a", {"memory/a/memory.limit_in_bytes": 2**63 - 4096}, 64),
        ("4:memory:/a", {"memory/a/memory.memsw.limit_in_bytes": 6 * GIB}, 6),
        # Other controllers, and files that say nothing.
        ("3:cpu:/a", {"cpu/a/memory.limit_in_bytes": GIB}, 64),
        ("0::/a", {"a/memory.max": ""}, 64),
        ("0::/a", {"a/memory.max": "many"}, 64),
    ],
)
def test_a_control_group_may_leave_less(machine, cgroup, files, limit_gib):
    files = {f"sys/fs/cgroup/{path}": text for path, text in files.items()}
    size, limit = memory.most(machine({"proc/self/cgroup": cgroup, **files}))
    assert size == limit_gib * GIB
    assert ("control group" in limit) == (limit_gib < 64)


@pytest.mark.parametrize(("swap_max", "gib"), [("max", 12), (str(GIB), 5), ("0", 4), (None, 12)])
def test_of_the_swap_a_group_may_have_a_part(machine, swap_max, gib):
    files = {
        "proc/self/cgroup": "0::/a",
        "proc/meminfo": f"SwapTotal: {8 * 2**20} kB",
        "sys/fs/cgroup/a/memory.max": 4 * GIB,
    }
    files |= {"sys/fs/cgroup/a/memory.swap.max": swap_max} if swap_max else {}
    assert memory.most(machine(files))[0] == gib * GIB


def test_a_limit_of_the_shell_counts(machine, monkeypatch):
    root = machine({})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (7 * GIB, resource.RLIM_INFINITY))
    assert memory.most(root) == (7 * GIB, "ulimit -v")


def test_a_system_that_tells_nothing_limits_nothing(machine, monkeypatch, tmp_path):
    def unknown(name):
        raise ValueError(name)

    root = machine({})
    monkeypatch.setattr(os, "sysconf", unknown)
    assert memory.most(root)[0] == float("inf")


def test_this_machine_has_memory():
    size, _ = memory.most()
    assert GIB / 2 < size < float("inf")


def test_what_cannot_fit_is_refused_with_the_estimate_the_limit_and_the_flags(monkeypatch):
    monkeypatch.setattr(memory, "most", lambda: (4 * GIB, "limit of its control group"))
    memory.check(4 * GIB, "A step", ["depth"])
    with pytest.raises(ValueError) as error:
        memory.check(4 * GIB + 1, "A step", ["depth", "seed", "global_batch_size"])
    assert str(error.value) == (
        "A step must fit into memory: it needs at least 4 GiB, and there are 4 GiB (limit of its "
        "control group). To use less: lower --global_batch_size, take a smaller --depth"
    )


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (1.5 * GIB, "1.5 GiB"),
        (1000 * GIB, "1,000 GiB"),
        (2**80, "1,048,576 EiB"),
    ],
)
def test_bytes_are_told_in_the_largest_unit_that_fits(size, words):
    assert memory.in_words(size) == words


def test_available_memory_is_what_the_system_estimates(tmp_path):
    assert memory.available_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert memory.available_bytes(tmp_path) == 7 * 1024


def test_what_a_process_can_still_have_is_limited_by_its_machine_and_by_its_group(machine):
    assert memory.left_bytes(machine({})) is None
    files = {
        "proc/meminfo": f"MemAvailable: {6 * 2**20} kB",
        "proc/self/status": f"VmRSS: {2**20} kB",
    }
    assert memory.left_bytes(machine(files)) == 6 * GIB
    files |= {"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": 4 * GIB}
    assert memory.left_bytes(machine(files)) == 3 * GIB
    assert memory.left_bytes(machine({"sys/fs/cgroup/memory.max": GIB // 2})) == 0
