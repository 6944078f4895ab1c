"""A table of one's own, as a TOML file."""

import contextlib
import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from keras_preact.experiments import train_flags
from keras_preact.experiments.table import Claim, Published, Row, Table, check_name
from keras_preact.support import records
from keras_preact.support.text import shown
from keras_preact.training import user_code

_WHAT = "a table of experiments"
_MOST_BYTES = 2**20
_SUFFIX = ".toml"
FAIL = "fail"


@dataclasses.dataclass(frozen=True)
class _Row:
    name: str
    label: str = ""
    column: str = ""
    flags: dict = dataclasses.field(default_factory=dict)
    published: float | str | None = None
    published_top5: float | None = None
    where: str = ""


@dataclasses.dataclass(frozen=True)
class _Claim:
    better: str
    worse: str
    where: str = ""


@dataclasses.dataclass(frozen=True)
class _File:
    rows: tuple
    recipe: str | None = None
    title: str = ""
    source: str = ""
    seeds: tuple[int, ...] | None = None
    flags: dict = dataclasses.field(default_factory=dict)
    claims: tuple = ()


def read(path: str) -> Table:
    """Reads a table from a TOML file.

    Its keys: title, source, recipe (base of all rows), flags (of all rows), seeds, rows (each
    with name, and label, column, flags, published, published_top5, where), and claims (each with
    better, worse, where). A unit or a shortcut in FILE.py is looked for beside the table too.

    Raises:
        ValueError: if the file is no such table; names the file, the key and the rule.
        OSError: if it cannot be read.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix != _SUFFIX:
        raise ValueError(f"table must be a file {_SUFFIX}. Received: table={shown(path)}")
    data = records.contents(file, _MOST_BYTES)
    with records.named(file, _WHAT):
        try:
            values = tomllib.loads(records.decoded(data))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"it must be TOML. Received: {error}") from None
        except RecursionError:
            raise ValueError("it must not be nested as deep as it is.") from None
        found = records.typed(values, _File, exact=True)
        check_name("the file's name", file.stem)
        rows = tuple(_row(values, number, found, file) for number, values in enumerate(found.rows))
        claims = tuple(
            Claim(**dataclasses.asdict(records.typed(values, _Claim, f"claims[{number}]", True)))
            for number, values in enumerate(found.claims)
        )
        return Table(
            file.stem, found.title or file.stem, found.source, rows, claims, seeds=_seeds(found)
        )


def _seeds(found):
    seeds = found.seeds
    if seeds is not None and (not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0):
        raise ValueError(
            f"seeds must be numbers from 0, each once. Received: seeds={records.short(seeds)}"
        )
    return seeds


def _row(values, number, found, file):
    place = f"rows[{number}]"
    row = records.typed(values, _Row, place, exact=True)
    with _of_row(place, row.name):
        check_name("the name of a row", row.name)
        flags = train_flags.merged(found.flags, row.flags)
        train_flags.check_of_table(flags)
        flags = {name: _flag(name, value, file) for name, value in flags.items()}
        # First, as later flags replace those of the recipe.
        flags = ({"recipe": found.recipe} if found.recipe else {}) | flags
        made = Row(row.name, row.label or row.name, row.column, flags, _published(row))
        made.config().require("dataset", "depth")
    return made


@contextlib.contextmanager
def _of_row(place, name):
    """A context whose ValueErrors begin with the place and the name of a row."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{place}, {shown(name)}: {error}") from error


def _published(row):
    if row.published is None:
        return None
    fails = row.published == FAIL
    if isinstance(row.published, str) and not fails:
        raise ValueError(
            f"published must be an error in percent, or {FAIL!r}. Received: {shown(row.published)}"
        )
    for name in ("published", "published_top5"):
        value = getattr(row, name)
        if isinstance(value, float | int) and not 0 <= value <= 100:
            raise ValueError(f"{name} must be 0 to 100, in percent. Received: {name}={value}")
    return Published(None if fails else row.published, row.where, row.published_top5)


def _flag(name: str, value: Any, file: pathlib.Path) -> Any:
    if isinstance(value, Mapping):
        raise ValueError(f"flags must have values, not tables. Received: {name}")
    if name in user_code.FIELDS and isinstance(value, str) and ".py:" in value:
        source, _, attribute = value.rpartition(":")
        beside = file.parent / source
        if not pathlib.Path(source).expanduser().exists() and beside.exists():
            return f"{beside.resolve()}:{attribute}"
    return value
