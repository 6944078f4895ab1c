"""The most memory that this process can have, and advice where that is too little."""

import os
import pathlib
import resource
from collections.abc import Iterable

# Ways to need less memory, by the option that has the effect.
_ADVICE = {
    "remat": "give --remat=auto",
    "global_batch_size": "lower --global_batch_size",
    "gradient_accumulation_steps": "raise --gradient_accumulation_steps",
    "batch_size": "lower --batch_size",
    "images": "lower --images",
    "image_size": "lower --image_size",
    "width_multiplier": "lower --width_multiplier",
    "depth": "take a smaller --depth",
    "precision": "give --precision=mixed_bfloat16",
}
# Version 1 of control groups writes "no limit" as a number near the largest.
_UNLIMITED = 2**60


def advice(fields: Iterable[str]) -> str:
    """The flags that make a program need less memory: "lower --batch_size, ..."; "" for none.

    Args:
        fields: names of the fields of the program's configuration.
    """
    fields = set(fields)
    return ", ".join(text for name, text in _ADVICE.items() if name in fields)


def check(least_bytes: int, what: str, fields: Iterable[str]) -> None:
    """Refuses work that this machine's memory surely cannot hold.

    Args:
        least_bytes: the least memory that the work needs.
        what: the name of the work, as in "A training step".
        fields: names of the fields of the program's configuration.

    Raises:
        ValueError: if the process cannot have that much.
    """
    most_bytes, limit = most()
    if least_bytes > most_bytes:
        raise ValueError(
            f"{what} must fit into memory: it needs at least {in_words(least_bytes)}, and there "
            f"are {in_words(most_bytes)} ({limit}). To use less: {advice(fields)}"
        )


def most(root: pathlib.Path = pathlib.Path("/")) -> tuple[float, str]:
    """The most bytes that this process can have, and what limits them.

    Memory that others use now counts too, as they may give it back. Infinite where the system
    does not tell.

    Args:
        root: the folder of proc and sys.
    """
    swap_bytes = _swap_bytes(root)
    limits = [(_physical_bytes() + swap_bytes, "memory of the machine")]
    limits += [(size, "limit of its control group") for size in _group_limits(root, swap_bytes)]
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append((soft, "ulimit -v"))
    return min(limits)


def available_bytes(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """The memory that the machine has left, as Linux estimates it; None where it does not tell."""
    return _size_in(root / "proc/meminfo", "MemAvailable")


def left_bytes(root: pathlib.Path = pathlib.Path("/")) -> int | None:
    """The memory that this process can have in addition, as far as Linux tells it; else None.

    Args:
        root: the folder of proc and sys.
    """
    available = available_bytes(root)
    if available is None:
        return None
    most_bytes, _ = most(root)
    own_bytes = _size_in(root / "proc/self/status", "VmRSS") or 0
    return max(0, min(available, most_bytes - own_bytes))


def in_words(size_bytes: float) -> str:
    """A number of bytes for people: "23.5 GiB"."""
    units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    while size_bytes >= 1024 and len(units) > 1:
        size_bytes, units = size_bytes / 1024, units[1:]
    return f"{size_bytes:,.3g} {units[0]}" if size_bytes < 1000 else f"{size_bytes:,.0f} {units[0]}"


def _physical_bytes():
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return float("inf")


def _swap_bytes(root):
    return _size_in(root / "proc/meminfo", "SwapTotal") or 0


def _size_in(path, name):
    """Bytes from a line such as "SwapTotal: 8 kB"; None where there is no such line."""
    for line in _lines(path):
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


def _group_limits(root, swap_bytes):
    """The limits of this process's control groups (versions 1 and 2) and of those around them."""
    for line in _lines(root / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        # A container sees its own group as the top, but its path from outside.
        folder = top / path.strip("/")
        for group in (folder, *folder.parents):
            if controllers:
                yield _number(group / "memory.limit_in_bytes") + swap_bytes
                yield _number(group / "memory.memsw.limit_in_bytes")
            else:
                swap_limit = _number(group / "memory.swap.max")
                yield _number(group / "memory.max") + min(swap_limit, swap_bytes)
            if group == top:
                break


def _number(path):
    """The number in a file of a control group; infinite where there is no limit or no number."""
    try:
        number = int(next(_lines(path), ""))
    except ValueError:
        return float("inf")
    return number if number < _UNLIMITED else float("inf")


def _lines(path):
    try:
        with path.open() as file:
            yield from (line.strip() for line in file)
    except OSError:
        return
