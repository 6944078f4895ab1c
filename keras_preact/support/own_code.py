"""Python code of the user's: known by its hash, imported under a name of its own.

A `Code` is the source of a module and of the modules beside it that it imports. It is imported
from memory, so that what runs is what was hashed, and as a package that its hash names, so that
versions of one file live side by side in a process.
"""

import builtins
import contextlib
import dataclasses
import functools
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import re
import sys
import traceback
import types
from collections.abc import Iterator, Mapping
from typing import ClassVar

from keras_preact.support.text import printable

_PACKAGE = "keras_preact_code_"
MOST_LETTERS = 500
# Keras prints what a layer raised in bold, between sentences of its own.
_KERAS = re.compile(r"\x1b\[1m(.*?)\x1b\[0m", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Code:
    """The source of a module and of the modules beside it that it imports.

    Args:
        files: source by path, relative to the folder that `import` statements search; the first
            is the module's own.
        places: the file that each was read from, for tracebacks.
        package: name of the installed package that relative imports refer to; "" where the
            package, if any, is among the files.
    """

    files: Mapping[str, bytes]
    places: Mapping[str, str]
    package: str = ""

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """The sha256 of each file."""
        return {path: sha256(data) for path, data in self.files.items()}

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of the file; of several, that of the list that `sha256sum` prints of them."""
        return digest_of(self.digests)

    @property
    def main(self) -> str:
        """Path of the module's file among `files`."""
        return next(iter(self.files))

    @property
    def place(self) -> str:
        """The file that the module was read from."""
        return self.places[self.main]

    def load(self) -> types.ModuleType:
        """Imports the module, once in a process.

        Raises:
            ValueError: if the code raises; the error names the file and the line.
        """
        package = _Package.of(self)
        try:
            with blamed(self.place):
                return importlib.import_module(package.module)
        except BaseException:
            package.forget()
            raise

    @property
    def is_loaded(self) -> bool:
        """Whether the module has been imported."""
        return self.digest in _Package.loaded


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(digests: Mapping[str, str]) -> str:
    """The hash of a module and its files, from the hash of each file."""
    if len(digests) == 1:
        return next(iter(digests.values()))
    main, *others = digests
    lines = [f"{digests[path]}  {path}\n" for path in (main, *sorted(others))]
    return sha256("".join(lines).encode())


class GoneError(ValueError):
    """A file or a module is not there."""


class CodeError(ValueError):
    """Code of the user's has failed; the message names file and line, and what it raised."""


@contextlib.contextmanager
def blamed(place: str | None = None) -> Iterator[None]:
    """A context whose errors from code of the user's become `CodeError`s.

    Args:
        place: the file to name where no line of it is in the traceback.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        # Those with an exit code of their own are no fault of the code that they pass through.
        if isinstance(error, (CodeError, GoneError, MemoryError)) or hasattr(error, "exit_code"):
            raise
        if (told := explained(error, place)) is None:
            raise
        raise CodeError(told) from error


def explained(error: BaseException, place: str | None = None) -> str | None:
    """Tells where code of the user's raised an error; None if it did not.

    Args:
        error: to explain.
        place: the file to name where no line of it is in the traceback.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in _Package.places
    ]
    if isinstance(error, SyntaxError) and error.filename in _Package.places:
        where = f"{error.filename}, line {error.lineno}"
        return f"{where}: {type(error).__name__}: {printable(str(error.msg))}"
    if not frames and place is None:
        return None
    where = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else place
    inside = f", in {frames[-1].name}" if frames and frames[-1].name != "<module>" else ""
    found = _KERAS.search(str(error))
    text = printable(" ".join((found[1] if found else str(error)).split()))[:MOST_LETTERS]
    return f"{printable(where)}{inside}: {type(error).__name__}" + (f": {text}" if text else "")


def find_class(module: str, name: str) -> type | None:
    """Returns a class of code that has been loaded, by its module; None of any other."""
    if not module.startswith(_PACKAGE) or module not in sys.modules:
        return None
    found = getattr(sys.modules[module], name, None)
    return found if isinstance(found, type) else None


class _Package(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A package whose modules are the files of a `Code`, held in memory.

    Import statements in these files find the others among them; all else is imported as ever.
    """

    loaded: ClassVar[dict[str, "_Package"]] = {}
    # Files of all packages, by which tracebacks are searched.
    places: ClassVar[set[str]] = set()

    def __init__(self, code: Code):
        self.code, self.name = code, f"{_PACKAGE}{code.digest[:16]}"
        self._files = {_dotted(path): path for path in code.files}
        tops = {name.partition(".")[0] for name in self._files}
        self._tops = tops - sys.stdlib_module_names

    @classmethod
    def of(cls, code: Code) -> "_Package":
        """Returns the package of this code; makes it at the first call."""
        if code.digest not in cls.loaded:
            cls.loaded[code.digest] = package = cls(code)
            sys.meta_path.append(package)
        package = cls.loaded[code.digest]
        cls.places.update(package.code.places.values())
        return package

    @property
    def module(self) -> str:
        """The full name of the module."""
        return f"{self.name}.{_dotted(self.code.main)}"

    def forget(self) -> None:
        """Lets the next load begin anew, after one that failed."""
        self.loaded.pop(self.code.digest, None)
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)
        for name in [name for name in sys.modules if f"{name}.".startswith(f"{self.name}.")]:
            del sys.modules[name]

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name and not fullname.startswith(f"{self.name}."):
            return None
        name = fullname[len(self.name) + 1 :]
        below = f"{name}." if name else ""
        has_parts = any(file.startswith(below) for file in self._files)
        file = self._files.get(name)
        if file is None and not has_parts:
            return None
        is_package = file is None or file.endswith("/__init__.py")
        origin = self.code.places[file] if file else None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=is_package)
        spec.has_location = file is not None
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        file = self._files.get(module.__name__[len(self.name) + 1 :])
        if file is None:
            return
        source, place = self.code.files[file], self.code.places[file]
        module.__builtins__ = {**vars(builtins), "__import__": self._import}
        # The file may change or go while the module is in use.
        text = source.decode(errors="replace")
        linecache.cache[place] = len(source), None, text.splitlines(keepends=True), place
        exec(compile(source, place, "exec", dont_inherit=True), vars(module))

    def _import(self, name, globals=None, locals=None, fromlist=(), level=0):
        if self.code.package:
            if level:
                name = importlib.util.resolve_name("." * level + name, self.code.package)
            return builtins.__import__(name, globals, locals, fromlist)
        if level or name.partition(".")[0] not in self._tops:
            return builtins.__import__(name, globals, locals, fromlist, level)
        full = f"{self.name}.{name}"
        module = builtins.__import__(full, globals, locals, fromlist or ("__name__",))
        return module if fromlist else sys.modules[f"{self.name}.{name.partition('.')[0]}"]


def _dotted(path):
    """The name of the module in a file, which may have any name itself."""
    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
    return ".".join(re.sub(r"\W", "_", part) for part in parts)
