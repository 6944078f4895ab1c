"""The host of a program: versions of packages, processor, memory and disk."""

import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator

from keras_preact.doctor.lines import Line
from keras_preact.support import extras, machine, memory
from keras_preact.version import __version__

_PYPROJECT = pathlib.Path(__file__).resolve().parents[2] / "pyproject.toml"
# "name[extra]>=1.2,<2 ; marker"
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?")
_RELATIONS = {
    ">=": lambda found, bound: found >= bound,
    "<=": lambda found, bound: found <= bound,
    "<": lambda found, bound: found < bound,
    ">": lambda found, bound: found > bound,
    "==": lambda found, bound: found == bound,
    "!=": lambda found, bound: found != bound,
}
_MOST_NAMED = 4
# ResNet-20 trains in about 1 GiB.
_LEAST_MEMORY_BYTES = 2 * 2**30
# A checkpoint of ResNet-152 takes 0.7 GiB with momentum and averages.
_LEAST_DISK_BYTES = 2 * 2**30


def requirements() -> list[str]:
    """What pyproject.toml asks for, as "tensorflow>=2.21,<2.22"; of the extra train too."""
    if _PYPROJECT.exists():
        project = tomllib.loads(_PYPROJECT.read_text())["project"]
        return [*project["dependencies"], *project["optional-dependencies"]["train"]]
    wanted = importlib.metadata.requires("keras_preact") or []
    return [line for line in wanted if "extra ==" not in line or re.search(r"== .train.", line)]


def package_lines(
    wanted: Callable[[], Iterable[str]] = requirements,
    version: Callable[[str], str] = importlib.metadata.version,
) -> Iterator[Line]:
    """A line for Python, and for the packages that are missing, out of range and in range.

    Args:
        wanted: returns requirements.
        version: returns a package's version, or raises `PackageNotFoundError`.
    """
    where = f"{platform.python_implementation()} {platform.python_version()}"
    yield Line("Python", f"{where}, keras_preact {__version__}", _python_advice())
    fine, missing = [], {}
    for requirement in wanted():
        name, bounds, _ = _REQUIREMENT.match(requirement.strip()).groups()
        bounds = bounds.strip(" ()")
        try:
            found = version(name)
        except importlib.metadata.PackageNotFoundError:
            missing[name] = f'"{name}{bounds}"'
            continue
        if in_range(found, bounds):
            fine.append(f"{name} {found}")
        else:
            finding = f"{found}, which is not {bounds}"
            yield Line(name, finding, f'pip install "{name}{bounds}"')
    if missing:
        advice = f"pip install {' '.join(missing.values())}"
        yield Line("packages missing", ", ".join(missing), advice)
    names = ", ".join(fine[:_MOST_NAMED])
    if len(fine) > _MOST_NAMED:
        names += f" and {len(fine) - _MOST_NAMED} more"
    yield Line("packages in range", names or "none", None if fine else extras.INSTALL)


def in_range(found: str, bounds: str) -> bool:
    """Whether a version lies within bounds such as ">=2.21,<2.22".

    Letters after the numbers, as in 2.22.0rc1, do not count.
    """
    for bound in filter(None, map(str.strip, bounds.split(","))):
        relation, number = re.match(r"([<>=!]=?)\s*(.*)", bound).groups()
        if not _RELATIONS[relation](_numbers(found), _numbers(number)):
            return False
    return True


def _numbers(version):
    parts = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]
    while parts and parts[-1] == 0:
        parts.pop()
    return parts


def _python_advice(version: tuple[str, str, str] = platform.python_version_tuple()):
    major_minor = tuple(map(int, version[:2]))
    return None if (3, 11) <= major_minor <= (3, 13) else "install Python 3.11, 3.12 or 3.13"


def machine_lines(
    folder: pathlib.Path = pathlib.Path("."), root: pathlib.Path = pathlib.Path("/")
) -> Iterator[Line]:
    """Processor, memory and the disk of a folder.

    Args:
        folder: in which runs are to be written.
        root: the folder of proc and sys.
    """
    bfloat16 = {True: "bfloat16 instructions", False: "no bfloat16 instructions", None: ""}
    count, quota = machine.cores(), machine.core_quota(root)
    parts = [machine.processor(), f"{count} core" + ("s" if count > 1 else "")]
    if quota and quota < count:
        parts.append(f"of which its container may use the time of {quota:g}")
    parts += filter(None, [bfloat16[machine.has_bfloat16()]])
    yield Line("processor", ", ".join(parts))
    yield _memory_line(root)
    yield _disk_line(folder)


def _memory_line(root):
    most_bytes, limit = memory.most(root)
    available = memory.available_bytes(root)
    finding = f"{memory.in_words(most_bytes)} ({limit})"
    if available is not None:
        finding += f", {memory.in_words(available)} of the machine available"
    least = min(most_bytes, most_bytes if available is None else available)
    advice = None
    if least < _LEAST_MEMORY_BYTES:
        advice = (
            f"free some memory or raise the limit: less than {memory.in_words(_LEAST_MEMORY_BYTES)}"
            " is too little for training"
        )
    return Line("memory", finding, advice)


def _disk_line(folder):
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Line("disk", f"not told: {error}", "go to a folder that exists")
    finding = f"{memory.in_words(free)} free in the current folder"
    if not os.access(folder, os.W_OK):
        return Line("disk", f"{finding}, which is read-only", "write runs elsewhere: --run_dir=...")
    advice = "free some: checkpoints need space" if free < _LEAST_DISK_BYTES else None
    return Line("disk", finding, advice)
