"""Units and shortcuts of the user's own, which flags name as FILE.py:NAME or package.module:NAME.

A configuration keeps such a text with the hash of the code behind it, FILE.py:NAME@SHA256, so
that it stands for one version whatever becomes of the file. The code is found by its hash: as it
was read in this process, or in the folder of a run, which has a copy.
"""

import dataclasses
import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import keras
from etils import epath
from keras.src import backend  # the only place of compute_output_spec

from keras_preact.layers import (
    ORDERS,
    SHORTCUTS,
    ActivationOrder,
    Shortcut,
    activation_order,
    shortcuts,
)
from keras_preact.support import code_files, own_code
from keras_preact.support.choices import one_of
from keras_preact.support.console import say
from keras_preact.support.options import LARGEST
from keras_preact.support.own_code import Code, CodeError, GoneError
from keras_preact.support.text import aligned, printable, shown

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

# Fields that may name code of the user's.
FIELDS = ("unit", "shortcut")
# Of their copies, in the folder of a run.
FOLDER = "code"
OWN = "FILE.py:NAME or package.module:NAME of your own"
_REFERENCE = re.compile(r"(?P<where>.+):(?P<name>[^:@]*)(@(?P<digest>[0-9a-f]{64}))?", re.DOTALL)
_CALL = ("filters", "strides", "first_in_network", "name")
_FACTORY = (
    "an ActivationOrder, or a factory: a function or a Keras layer class, called with "
    f"{', '.join(f'{name}=' for name in _CALL[:-1])} and name=, that returns a layer"
)
_SHORTCUT = "a subclass of keras_preact.layers.Shortcut, or an instance of one"


class Reference(NamedTuple):
    """A text that names code: where it lies, the name in it, and the hash of the code if known."""

    where: str
    name: str
    digest: str | None

    def __str__(self) -> str:
        return f"{self.where}:{self.name}" + (f"@{self.digest}" if self.digest else "")


@dataclasses.dataclass(frozen=True)
class CodeRecord:
    """What the record of a run says of the user's code.

    Args:
        file: that it was read from, for people.
        sha256: of the code, as the configuration has it.
        files: the sha256 of each copy, by its path in the folder; the first is the file's.
        package: the installed package that its relative imports refer to; "" without one.
    """

    file: str
    sha256: str
    files: dict[str, str]
    package: str = ""

    def __post_init__(self):
        if not self.files or self.sha256 != own_code.digest_of(self.files):
            raise ValueError("the sha256 of code must be that of its files")
        for name in self.files:
            if not name.endswith(".py") or name.startswith("/") or ".." in name.split("/"):
                raise ValueError(
                    "the files of code must lie below its folder and end in .py. "
                    f"Received: {shown(name)}"
                )


def parse(text: str) -> Reference | None:
    """Returns the parts of a text that names code; None for a name of a table."""
    found = _REFERENCE.fullmatch(text)
    return found and Reference(found["where"], found["name"], found["digest"])


def label(text: str) -> str:
    """The name of a unit or a shortcut for people: "SqueezeUnit" of my_units.py:SqueezeUnit."""
    reference = parse(text)
    return reference.name if reference else text


def identity(text: str) -> str:
    """A text that is equal for the same code, wherever it lies: NAME@SHA256."""
    reference = parse(text)
    return f"{reference.name}@{reference.digest}" if reference and reference.digest else text


# --- which code a configuration means ------------------------------------------------------------

# By hash: code that this process has read, and folders of runs that have a copy.
_known: dict[str, Code] = {}
_copies: dict[str, tuple[epath.Path, CodeRecord]] = {}


def pinned(flag: str, text: str, may_be_gone: bool) -> str:
    """Returns a text with the hash of the code that it names, and imports that code.

    Args:
        flag: "unit" or "shortcut".
        text: a name of a table, which is returned as it is, or that of code.
        may_be_gone: whether a file that is not there is left to the folder of a run.

    Raises:
        ValueError: if there is no such file or name in it, or the code raises.
    """
    reference = parse(text)
    if reference is None or reference.digest:
        return text
    if not reference.name:
        raise ValueError(f"{flag} must be {OWN}. Received: {flag}={shown(text)}")
    try:
        code = code_files.read(reference.where, flag)
    except GoneError:
        if may_be_gone:
            return text
        raise
    _known.setdefault(code.digest, code)
    reference = reference._replace(digest=code.digest)
    _look_up(flag, reference)
    return str(reference)


def remember(folder: epath.Path, records: Mapping[str, CodeRecord]) -> None:
    """Makes the copies in the folder of a run known; nothing is read until it is needed."""
    for flag, record in records.items():
        _copies[record.sha256] = folder / flag, record


def of(config: "TrainConfig") -> dict[str, Code]:
    """The user's code that a configuration names, by field.

    Raises:
        ValueError: if it is not there, or no longer what it was.
    """
    references = {flag: parse(getattr(config, flag)) for flag in FIELDS}
    return {flag: _code(flag, named) for flag, named in references.items() if named}


def record(code: Code) -> CodeRecord:
    """Returns what the record of a run keeps of code."""
    file = code.place if "://" in code.place else os.path.abspath(code.place)
    return CodeRecord(file, code.digest, code.digests, code.package)


def check_copies(folder: epath.Path, records: Mapping[str, CodeRecord]) -> None:
    """Raises ValueError if a copy in the folder of a run is missing or has changed."""
    for flag, found in records.items():
        code_files.read_copy(folder / flag, found.files, found.package)


def of_run(
    config: "TrainConfig",
    recorded: "TrainConfig",
    folder: epath.Path,
    records: Mapping[str, CodeRecord],
) -> tuple["TrainConfig", list[str]]:
    """Takes the copies of a run for the same code, or code that is gone, in a configuration.

    Args:
        config: for the run to go on with, or to be evaluated.
        recorded: configuration of the run.
        folder: of its copies.
        records: of its code.

    Returns:
        The configuration, and lines for people.

    Raises:
        ValueError: if code of the same name has changed, or is gone without a copy.
    """
    changes, notes = {}, []
    for flag in FIELDS:
        text, was = getattr(config, flag), getattr(recorded, flag)
        now, before = parse(text), parse(was)
        if now is None:
            continue
        is_same_name = before is not None and now.name == before.name
        if now.digest is None:
            if not is_same_name:
                code_files.read(now.where, flag)  # raises
            notes.append(f"{printable(now.where)} is gone: {flag} is the copy in {folder / flag}.")
        elif is_same_name and now.digest != before.digest:
            raise _changed(flag, now, records.get(flag), folder / flag)
        if is_same_name:
            changes[flag] = was
    return dataclasses.replace(config, **changes) if changes else config, notes


def _changed(flag, now, then, folder):
    code = _code(flag, now)
    was = then.files if then else {}
    rows = [
        (code.places.get(path, path), was.get(path, "(none)"), code.digests.get(path, "(none)"))
        for path in {**was, **code.digests}
        if was.get(path) != code.digests.get(path)
    ]
    return ValueError(
        f"{flag}={printable(now.where)}:{now.name} has changed since the run began. Leave the "
        f"flag out to go on with the copy of then, in {folder}; or give --overwrite or another "
        "--run_dir to train the new one. The sha256 of these files differ:\n"
        + aligned(("file", "in the run", "now"), rows)
    )


def _code(flag, reference):
    """The code of a hash."""
    if reference.digest in _known:
        return _known[reference.digest]
    if reference.digest in _copies:
        folder, found = _copies[reference.digest]
        code = code_files.read_copy(folder, found.files, found.package)
        say(f"Running code from the folder of a run: {folder / code.main}")
    else:
        code = code_files.read(reference.where, flag)
        if reference.digest is not None and code.digest != reference.digest:
            raise ValueError(
                f"{flag} must name code of the sha256 after its @. Received: "
                f"{shown(str(reference))}, whose sha256 is {code.digest}"
            )
    return _known.setdefault(code.digest, code)


# --- the objects ---------------------------------------------------------------------------------


def _look_up(flag, reference):
    """The object of a name in code."""
    code = _code(flag, reference)
    is_new = not code.is_loaded
    registered = dict(keras.saving.get_custom_objects())
    module = code.load()
    if is_new:
        _keep_registered(registered)
    if not reference.name.isidentifier() or not hasattr(module, reference.name):
        names = [name for name, value in vars(module).items() if _fits(flag, value)]
        rule = f"the name of {_FACTORY if flag == 'unit' else _SHORTCUT}, in {code.place}"
        one_of(flag, reference.name, names, rule)
    return getattr(module, reference.name)


def _keep_registered(before):
    """Gives names back to the classes of other modules that had them with Keras before.

    Which class a saved layer is of is found by its module first; see `own_code.find_class`.
    """
    now = keras.saving.get_custom_objects()
    for name, value in before.items():
        if now.get(name) is not value and own_code.find_class(value.__module__, name) is None:
            now[name] = value


def _fits(flag, value):
    """Whether an object can be a unit, or a shortcut."""
    is_shortcut_class = isinstance(value, type) and issubclass(value, Shortcut)
    if flag == "shortcut":
        return (is_shortcut_class and value is not Shortcut) or isinstance(value, Shortcut)
    if isinstance(value, type):
        return issubclass(value, keras.layers.Layer) and not is_shortcut_class
    is_factory = callable(value) and not isinstance(value, keras.layers.Layer)
    return is_factory or isinstance(value, ActivationOrder)


def _object(flag, reference):
    """The unit or shortcut of a name; raises ValueError if it is something else."""
    found, rule = _look_up(flag, reference), _FACTORY if flag == "unit" else _SHORTCUT
    if not _fits(flag, found):
        raise ValueError(
            f"{flag} must name {rule}. Received: {reference.where}:{reference.name}, which is "
            f"{_kind(found)}"
        )
    return found


def _kind(value):
    if isinstance(value, type):
        return f"the class {value.__name__}"
    article = "an" if type(value).__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


class Factory:
    """A factory of the user's; what it raises names its file and line.

    Args:
        function: that makes a layer.
        name: in its module.
        place: the file of the module.
    """

    def __init__(self, function: Callable[..., keras.layers.Layer], name: str, place: str):
        self._function, self._place, self.__name__ = function, place, name

    def __call__(self, **arguments) -> keras.layers.Layer:
        with own_code.blamed(f"{self.where}, in {self.__name__}"):
            layer = self._function(**arguments)
        name = getattr(layer, "name", None)
        if not isinstance(layer, keras.layers.Layer) or name != arguments["name"]:
            raise CodeError(
                f"{self.where}: {self.__name__} must return a Keras layer of the name that it is "
                f"given, {arguments['name']!r}. Received: {_kind(layer)}"
                + (f" named {shown(str(name))}" if name else "")
            )
        return layer

    @property
    def where(self) -> str:
        """File and line of the factory."""
        function = inspect.unwrap(getattr(self._function, "func", self._function))
        code = getattr(function, "__code__", None) or getattr(function.__init__, "__code__", None)
        if code is not None and code.co_filename == self._place:
            return f"{self._place}, line {code.co_firstlineno}"
        return self._place

    def check_signature(self) -> None:
        """Raises ValueError if the factory does not take the arguments that it is given."""
        try:
            inspect.signature(self._function).bind(**dict.fromkeys(_CALL))
        except TypeError as error:
            raise CodeError(
                f"{self.where}: {self.__name__} must be {_FACTORY}. Received: one with another "
                f"signature: {error}"
            ) from error
        except ValueError:
            return  # Python knows no signature of it

    def __repr__(self) -> str:
        return f"<{self.__name__} of {self._place}>"


def unit(text: str) -> str | ActivationOrder | Factory:
    """Returns the unit that a field names, as `ResNetV2` takes it.

    Raises:
        ValueError: if it is none, or its code is not there or raises.
    """
    reference = parse(text)
    if reference is None:
        return one_of("unit", text, ORDERS, f"one of {', '.join(ORDERS)}, or {OWN}")
    found = _object("unit", reference)
    if isinstance(found, ActivationOrder):
        return found
    return Factory(found, reference.name, _code("unit", reference).place)


def shortcut(text: str, arguments: str) -> Shortcut:
    """Returns the shortcut that the fields name.

    Args:
        text: a name of the table, or that of code.
        arguments: of its constructor, as in rate=0.5,rescale=True.

    Raises:
        ValueError: if it is none, its code is not there or raises, or an argument is not its own.
    """
    values = _values(arguments)
    reference = parse(text)
    if reference is None:
        one_of("shortcut", text, SHORTCUTS, f"one of {', '.join(SHORTCUTS)}, or {OWN}")
        shortcuts.check_own_arguments(text, values)
        return shortcuts.get(text, **values)
    found = _object("shortcut", reference)
    if isinstance(found, Shortcut):
        if values:
            raise ValueError(
                "shortcut_arguments are for a class of shortcuts; an instance has its own. "
                f"Received: shortcut={reference.name}, an instance, shortcut_arguments="
                f"{shown(arguments)}"
            )
        return found
    shortcuts.check_own_arguments(found, values)
    with own_code.blamed(_code("shortcut", reference).place):
        return found(**values)


def try_out(network: keras.Model) -> None:
    """Calls the first unit of a network symbolically, so that what it raises is known early.

    Keras itself calls no layer that tells the shape of its output.
    """
    first = next(layer for layer in network.layers if layer.name == "stage1_unit1")
    images = keras.KerasTensor(first.input.shape, first.compute_dtype)
    for training in (True, False):
        backend.compute_output_spec(functools.partial(first, training=training), images)


def _values(arguments):
    values = {}
    for part in filter(None, arguments.split(",")):
        name, _, text = part.partition("=")
        value = _number(text.strip())
        if value is None or not abs(value) <= LARGEST:
            raise ValueError(
                "shortcut_arguments must be NAME=VALUE,NAME=VALUE, each value a number, True "
                f"or False. Received: shortcut_arguments={shown(arguments)}"
            )
        values[name.strip()] = value
    return values


def _number(text):
    """Parses an int, a float, True or False; returns None for anything else."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def names_code(config: "TrainConfig") -> bool:
    """Whether a configuration names code of the user's."""
    return any(parse(getattr(config, flag)) for flag in FIELDS)


def is_known(config: "TrainConfig") -> bool:
    """Whether a configuration names no code but such as this process has imported."""
    named = [parse(getattr(config, flag)) for flag in FIELDS]
    return all(found is None or found.digest in _known for found in named)


def check(config: "TrainConfig") -> None:
    """Raises ValueError if unit or shortcut contradict another field, or are no unit and shortcut.

    Code from the folder of a run is left alone until it is needed.
    """
    if not is_known(config):
        return
    shortcut(config.shortcut, config.shortcut_arguments)
    if not isinstance(factory := unit(config.unit), Factory):
        return
    factory.check_signature()
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    decided = ("shortcut", "shortcut_arguments", "projection", "stochastic_depth_rate", "layout")
    given = [
        f"{name}={getattr(config, name)!r}"
        for name in decided
        if getattr(config, name) != defaults[name]
    ]
    if given:
        raise ValueError(
            f"The factory unit={factory.__name__} decides on its shortcut, projection, stochastic "
            f"depth and layout itself: leave these flags out. Received: {', '.join(given)}"
        )


def order(config: "TrainConfig") -> ActivationOrder:
    """The order of BN and ReLU that stem and head of a configuration's network follow.

    Raises:
        ValueError: as `unit` does, or if a factory makes no layer.
    """
    found = unit(config.unit)
    if isinstance(found, Factory):
        layer = found(filters=16, strides=1, first_in_network=True, name="stage1_unit1")
        found = getattr(layer, "order", "full_preactivation")
    return activation_order.get(found)
