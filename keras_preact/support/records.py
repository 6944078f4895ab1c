"""Reading JSON back: what it holds has the types asked for, or the error names file and field."""

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

# Far beyond what any of these files reaches; what goes further was not written by a program.
MOST_BYTES = 2**26
MOST_LEVELS = 64
MOST_DIGITS = 40
_MOST_LETTERS = 80

# By the names that pydantic gives its errors.
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
    """A value as JSON has it, escaped, in one line and at most 80 letters."""
    return _cut(json.dumps(value, default=repr))


def plain(text: str) -> str:
    """A text without quotation marks, escaped, in one line and at most 80 letters."""
    return _cut(text.encode("unicode_escape").decode())


def _cut(text):
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
    """Raises ValueError if a folder lies there, or what may never end: a pipe, a device."""
    # For epath, a pipe is a file as well.
    if (os.path.exists(path) and not os.path.isfile(path)) or epath.Path(path).is_dir():
        raise ValueError(f"{path} must be a file. Received: a folder, a pipe or a device")


def decoded(data: bytes) -> str:
    """The text that UTF-8 bytes stand for; raises ValueError where they stand for none."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        byte = data[error.start]
        raise ValueError(f"it must be UTF-8. Received: byte {byte:#04x} at {error.start}") from None


@contextlib.contextmanager
def named(path: epath.PathLike, what: str) -> Iterator[None]:
    """A context whose ValueErrors say what a file is not: "FILE is not WHAT: REASON"."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path} is not {what}: {error}") from None


def read_json(path: epath.PathLike, kind: type[T], what: str) -> T:
    """Reads a JSON file as an instance of a type.

    Args:
        path: of the file, on a disk or in a bucket.
        kind: as for `typed`.
        what: the file must be, for the error, as in "the record of a run".

    Raises:
        ValueError: if the file holds something else; it names the file and the field.
        OSError: if it cannot be read.
    """
    data = contents(path)
    with named(path, what):
        return typed(parse_json(decoded(data)), kind)


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: if it is no JSON, is nested deeper than `MOST_LEVELS`, has a name twice in
            one object, or an integer of more than `MOST_DIGITS` digits.
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
    """A value of JSON as one of a type: strings are no numbers, and numbers no booleans.

    Args:
        value: of JSON: an object for a dataclass, a list for a tuple.
        kind: a dataclass of such types, a dict of dataclasses, or a type of JSON's, as in
            `tuple[float, ...] | None`; plain `dict` and `list` for what is not looked into.
            Numbers must be finite, and fields that have no default must be given.
        where: the value lies, for the error, as in "config".
        exact: whether a dataclass may be given its own fields alone; others are ignored
            otherwise.

    Raises:
        ValueError: if it is none; or as a dataclass does. It names the field, the rule and
            the value.
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
        # Those of unions are as many as the union's types.
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
    """Lists as tuples; and 5.0 as 5, as JSON knows one kind of number. Where a float is wanted,
    pydantic makes one of either."""
    if isinstance(value, list | tuple):
        return tuple(map(_as_tuples, value))
    if isinstance(value, dict):
        return {name: _as_tuples(entry) for name, entry in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _at(where, name):
    """A place in a place: config.drop_steps[1], files["a b"]."""
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
    """How deep lists and objects are nested; counted level by level, as recursion would end."""
    levels, row = 0, [value]
    while row := [entry for entry in row if isinstance(entry, list | dict)]:
        levels += 1
        row = [part for e in row for part in (e.values() if isinstance(e, dict) else e)]
    return levels
