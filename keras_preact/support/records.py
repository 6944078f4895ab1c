"""Reads JSON with checked types; errors name the file and the field."""

import collections
import contextlib
import dataclasses
import functools
import json
import os
import typing
from collections.abc import Iterator
from typing import Any, TypeVar

import pydantic
from etils import epath

T = TypeVar("T")

# Far beyond any of these files; a larger one was not written by a program.
MOST_BYTES = 2**26
MOST_LEVELS = 64
MOST_DIGITS = 40
_MOST_LETTERS = 80

# Rules by the names of pydantic's errors.
_RULES = {
    "bool_type": "true or false",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "list_type": "a list",
    "string_type": "a string",
    "tuple_type": "a list",
}


def short(value: Any) -> str:
    """Shows a value as JSON: escaped, in one line, at most 80 letters."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."


def contents(path: epath.PathLike, most_bytes: int = MOST_BYTES) -> bytes:
    """Reads the bytes of a file.

    Raises:
        ValueError: if it is no regular file, or is too long.
        OSError: if it cannot be read.
    """
    check_regular(path)
    with epath.Path(path).open("rb") as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError(f"{path} must have at most {most_bytes:,} bytes. Received: more")
    return data


def check_regular(path: epath.PathLike) -> None:
    """Raises ValueError for a folder, and for a pipe or a device, which may never end."""
    # For epath, a pipe is a file too.
    if (os.path.exists(path) and not os.path.isfile(path)) or epath.Path(path).is_dir():
        raise ValueError(f"{path} must be a file. Received: a folder, a pipe or a device")


def decoded(data: bytes) -> str:
    """Decodes UTF-8; raises ValueError at the first wrong byte."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ValueError(f"it must be UTF-8. Received: byte {byte:#04x} at {error.start}") from None


@contextlib.contextmanager
def named(path: epath.PathLike, what: str) -> Iterator[None]:
    """A context whose ValueErrors begin with the file: "FILE is not WHAT: REASON"."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is not {what}: {error}") from None


def read_json(path: epath.PathLike, kind: type[T], what: str) -> T:
    """Reads a JSON file as an instance of a type.

    Args:
        path: of the file, on a disk or in a bucket.
        kind: as for `typed`.
        what: the contents, as in "the record of a run", for the error.

    Raises:
        ValueError: if the file holds something else; the error names the file and the field.
        OSError: if it cannot be read.
    """
    data = contents(path)
    with named(path, what):
        return typed(parse_json(decoded(data)), kind)


def parse_json(text: str) -> Any:
    """Parses a JSON text.

    Raises:
        ValueError: if it is no JSON, is nested deeper than `MOST_LEVELS`, has a name twice in
            an object, or has an integer of more than `MOST_DIGITS` digits.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"it must be JSON. Received: {error}") from None
    except RecursionError:
        value, levels = None, MOST_LEVELS + 1
    else:
        levels = _levels(value)
    if levels > MOST_LEVELS:
        raise ValueError(f"it must be nested at most {MOST_LEVELS} deep. Received: more")
    return value


def typed(value: Any, kind: type[T], where: str = "", exact: bool = False) -> T:
    """Converts a value of JSON to a type; strings are no numbers, and numbers no booleans.

    Args:
        value: of JSON: an object for a dataclass, a list for a tuple.
        kind: a dataclass of such types, a dict of dataclasses, or a type of JSON's, as in
            `tuple[float, ...] | None`; plain `dict` and `list` leave their contents unchecked.
            Numbers must be finite, and fields without a default must be given.
        where: the place of the value, as in "config", for the error.
        exact: whether to refuse fields that a dataclass lacks, rather than ignore them.

    Raises:
        ValueError: if it has another type, or as a dataclass does; the error names the field,
            the rule and the value.
    """
    of_values = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
    if dataclasses.is_dataclass(kind):
        return _instance(_leaf(value, dict, where), kind, where, exact)
    if dataclasses.is_dataclass(of_values):
        entries = _leaf(value, dict, where).items()
        return {name: typed(entry, of_values, _at(where, name), exact) for name, entry in entries}
    return _leaf(value, kind, where)


def _instance(values, kind, where, exact):
    hints = _hints(kind)
    fields = {field.metadata.get("json", field.name): field for field in dataclasses.fields(kind)}
    if unknown := sorted(values.keys() - fields.keys()) if exact else ():
        raise ValueError(
            f"{where or 'it'} must have no other fields than {', '.join(fields)}. "
            f"Received: {', '.join(map(short, unknown[:3]))}"
        )
    found = {}
    for name, field in fields.items():
        place = _at(where, name)
        if name in values:
            found[field.name] = typed(values[name], hints[field.name], place, exact)
        elif dataclasses.MISSING is field.default is field.default_factory:
            raise ValueError(f"{place} must be given. Received: nothing")
    return kind(**found)


def _leaf(value, kind, where):
    try:
        return _adapter(kind).validate_python(value if kind in (dict, list) else _as_tuples(value))
    except pydantic.ValidationError as invalid:
        error = invalid.errors(include_url=False)[0]
    for name in error["loc"]:
        where = _at(where, name)
    if error["type"] == "missing":
        raise ValueError(f"{where} must be given. Received: nothing")
    if error["type"] == "too_long":
        rule = f"a list of {error['ctx']['max_length']}"
    else:
        # A union has an error for each of its types.
        rule = _RULES.get(error["type"], f"of another type: {error['msg']}")
    if not error["loc"] and type(None) in typing.get_args(kind):
        rule += " or null"
    raise ValueError(f"{where or 'it'} must be {rule}. Received: {short(error['input'])}")


@functools.cache
def _hints(kind):
    return typing.get_type_hints(kind)


@functools.cache
def _adapter(kind):
    return pydantic.TypeAdapter(kind, config={"strict": True, "allow_inf_nan": False})


def _as_tuples(value):
    """Turns lists into tuples, and 5.0 into 5, as JSON has one kind of number; pydantic takes
    either for a float."""
    if isinstance(value, list | tuple):
        return tuple(map(_as_tuples, value))
    if isinstance(value, dict):
        return {name: _as_tuples(entry) for name, entry in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _at(where, name):
    """The name of a place within another: config.drop_steps[1], files["a b"]."""
    if isinstance(name, str) and name.isascii() and name.isidentifier():
        return f"{where}.{name}" if where else name
    return f"{where}[{short(name)}]"


def _object(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it must have each name once in an object. Received: {short(twice)}")
    return found


def _integer(digits):
    if len(digits) > MOST_DIGITS:
        raise ValueError(
            f"its integers must have at most {MOST_DIGITS} digits. Received: one of {len(digits)}"
        )
    return int(digits)


def _levels(value):
    """How deep lists and objects are nested; counted by level, as recursion has a limit."""
    levels, row = 0, [value]
    while row := [entry for entry in row if isinstance(entry, list | dict)]:
        levels += 1
        row = [part for e in row for part in (e.values() if isinstance(e, dict) else e)]
    return levels
