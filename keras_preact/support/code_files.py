"""Reads code of the user's from files and modules, with what it imports from beside it."""

import ast
import contextlib
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Mapping

from etils import epath

from keras_preact.support.files import write_whole
from keras_preact.support.own_code import MOST_LETTERS, Code, CodeError, GoneError, sha256
from keras_preact.support.paths import usable
from keras_preact.support.records import contents
from keras_preact.support.text import printable, shown

# Far beyond any module that describes a layer.
MOST_BYTES = 2**20
MOST_FILES = 100
# Of folders into which packages are installed.
_INSTALLED = {"site-packages", "dist-packages"}
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def read(where: str, flag: str) -> Code:
    """Reads a file, or a module by its name, and what it imports from beside it.

    Args:
        where: FILE.py, relative to the current folder, or package.module, looked for as `import`
            does, and then in the current folder.
        flag: that gave it, for errors.

    Raises:
        GoneError: if there is no such file or module.
        ValueError: if it cannot be read, or is no Python.
    """
    if where.endswith(".py"):
        path = usable(where, flag, wildcards=True)
        root, main, package = path.parent, path.name, ""
    elif _MODULE.fullmatch(where):
        path, root, package = _find_module(where, flag)
        main = path.name if package else str(path.relative_to(root))
    else:
        raise ValueError(
            f"{flag} must be FILE.py:NAME or package.module:NAME, for code of your own. "
            f"Received: {flag}={shown(where)}"
        )
    found = {main: path}
    sources = {main: _source(path, flag)}
    for name in () if package else _closure(root, main, sources, flag):
        found[name] = root / name
    return Code(sources, {name: os.fspath(found[name]) for name in sources}, package)


def write_copy(code: Code, folder: epath.Path) -> None:
    """Writes the files of code to a folder, as `read_copy` reads them."""
    for name, data in code.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)


def read_copy(folder: epath.Path, digests: Mapping[str, str], package: str = "") -> Code:
    """Reads files that `write_copy` wrote.

    Args:
        folder: of the files.
        digests: the sha256 of each, the module's own first.
        package: see `Code`.

    Raises:
        ValueError: if one is missing or has changed; the error names it and both hashes.
    """
    files = {}
    for name, digest in digests.items():
        path = folder / name
        if not path.exists():
            raise ValueError(
                f"A run needs its own copy of the user's code. {path} is missing, whose sha256 "
                f"was {digest}: put it back"
            )
        files[name] = contents(path, MOST_BYTES)
        if (now := sha256(files[name])) != digest:
            raise ValueError(
                f"A run needs its own copy of the user's code as it was. {path} has been changed "
                f"or damaged: its sha256 is {now}, and was {digest}. Put the file back"
            )
    return Code(files, {name: os.fspath(folder / name) for name in files}, package)


def _source(path, flag):
    if not path.exists():
        raise GoneError(
            f"{flag} must name a Python file that is there. Received: {shown(str(path))}, which "
            "is not"
        )
    try:
        return contents(path, MOST_BYTES)
    except OSError as error:
        raise ValueError(
            f"{flag} must name a Python file that can be read. Received: {shown(str(path))} "
            f"({error.strerror})"
        ) from None


def _find_module(name, flag):
    """(file of a module, folder to import from, the package it is in if that is installed)."""
    top, *rest = name.split(".")
    finder = importlib.machinery.PathFinder
    spec = None
    with contextlib.suppress(ImportError, ValueError):
        spec = importlib.util.find_spec(top)
    with contextlib.suppress(FileNotFoundError):  # the current folder has been deleted
        spec = spec or finder.find_spec(top, [os.getcwd()])
    full = top
    for part in rest:
        places = spec and spec.submodule_search_locations
        full = f"{full}.{part}"
        spec = finder.find_spec(full, list(places)) if places else None
    if spec is None or not (spec.origin or "").endswith(".py"):
        raise GoneError(
            f"{flag} must be FILE.py:NAME, or package.module:NAME of a module that can be "
            f"imported. Received: the module {shown(name)}, which cannot be found"
        )
    path, is_package = epath.Path(spec.origin), spec.submodule_search_locations is not None
    root = path.parents[len(rest) + is_package]
    lies_as_named = root.joinpath(top, *rest) in (path.with_suffix(""), path.parent)
    if top == "keras_preact" or _INSTALLED & set(path.parts) or not lies_as_named:
        return path, path.parent, name if is_package else name.rpartition(".")[0] or name
    return path, root, ""


def _closure(root, main, sources, flag):
    """Reads the modules below root that a module imports, and those that these import.

    Adds them to `sources`, and returns their paths.
    """
    pending, added = [main], []
    while pending:
        path = pending.pop(0)
        if len(sources) > MOST_FILES:
            raise ValueError(
                f"{flag} must name code that imports at most {MOST_FILES} modules from beside it. "
                f"Received: {shown(str(root / main))}, which imports more"
            )
        names = list(_imported(root, path, sources[path], flag))
        if path == main and "/" in main:  # its packages are imported first
            names.append(main.removesuffix(".py").replace("/", "."))
        for name in names:
            for file in _files_of(root, name):
                if file not in sources:
                    sources[file] = _source(root / file, flag)
                    pending.append(file)
                    added.append(file)
    return added


def _imported(root, path, source, flag):
    """Yields the dotted names that a file imports, relative to root."""
    try:
        tree = ast.parse(source, filename=str(root / path))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        where = f"{root / path}" + (f", line {line}" if line else "")
        reason = printable(str(getattr(error, "msg", error)))[:MOST_LETTERS]
        raise CodeError(
            f"{flag} must name Python code. Received: {printable(where)}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    package = path.split("/")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package) + 1:
                continue
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name:
                yield name
            yield from (f"{name}.{alias.name}".strip(".") for alias in node.names)


def _files_of(root, name):
    """The files below root that importing a dotted name runs; none if it is no module there."""
    parts = name.split(".")
    if parts[0] == "keras_preact" or parts[0] in sys.stdlib_module_names:
        return []
    found = []
    for count in range(1, len(parts) + 1):
        path = "/".join(parts[:count])
        for file in (f"{path}/__init__.py", f"{path}.py"):
            if (root / file).exists():
                found.append(file)
                break
        else:
            # A folder without __init__.py is a package as well; an attribute is no module.
            if not (root / path).is_dir():
                break
    return found
