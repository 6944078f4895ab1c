"""Tables of experiments as data: rows of flags, the published figures, the claims on them."""

import dataclasses
import itertools
import re
from collections.abc import Mapping
from typing import Any

from keras_preact.experiments import train_flags
from keras_preact.support.text import shown
from keras_preact.training import TrainConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
# The paper writes "fail" for a test error above this, in percent.
FAIL_PERCENT = 20.0


@dataclasses.dataclass(frozen=True)
class Published:
    """The figure of a row in a publication.

    Args:
        error_percent: test error (top-1) in percent; None where the publication says that the
            network fails, an error above `FAIL_PERCENT`.
        where: its place in the publication, as in "Table 1, row 4".
        top5_error_percent: of ImageNet.
        note: how the publication measured otherwise than a run of the row does.
    """

    error_percent: float | None
    where: str
    top5_error_percent: float | None = None
    note: str = ""

    @property
    def fails(self) -> bool:
        return self.error_percent is None


@dataclasses.dataclass(frozen=True)
class Row:
    """One network and its training.

    Args:
        name: unique in the table, of letters, digits, ".", "_" and "-".
        label: for people.
        column: rows are compared within a column, such as "CIFAR-10, ResNet-110".
        flags: of train.py, with their values; `recipe` is one of them.
        published: None where there is no figure.
    """

    name: str
    label: str
    column: str
    flags: Mapping[str, Any]
    published: Published | None = None

    def given(self) -> dict[str, Any]:
        """The fields of `TrainConfig` that the flags set, those of the recipe included."""
        return train_flags.read(train_flags.texts(self.flags))

    def config(self, seed: int = 0) -> TrainConfig:
        """The configuration of the full recipe."""
        return TrainConfig(**{**self.given(), "seed": seed})


@dataclasses.dataclass(frozen=True)
class Claim:
    """The statement that a row has the lower test error of two.

    Args:
        better: name of the row.
        worse: name of the other.
        where: its place in the publication.
    """

    better: str
    worse: str
    where: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of experiments.

    Args:
        name: as in `keras-preact experiments NAME`.
        title: for people.
        source: the publication; empty for a table of one's own.
        rows: in order.
        claims: beside those that the published figures make; see `all_claims`.
        setting: how the figures were published, in a sentence.
        seeds: of a table of one's own; None leaves their number to the budget.

    Raises:
        ValueError: if there is no row, a name is no file's name or stands twice, or a claim names
            no row.
    """

    name: str
    title: str
    source: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...] = ()
    setting: str = ""
    seeds: tuple[int, ...] | None = None

    def __post_init__(self):
        check_name("name", self.name)
        if not self.rows:
            raise ValueError("A table must have one row at least. Received: none")
        names = [row.name for row in self.rows]
        for name in names:
            check_name("the name of a row", name)
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"Rows must have different names. Received: {', '.join(twice)} twice")
        for claim in self.claims:
            for name in (claim.better, claim.worse):
                if name not in names:
                    raise ValueError(
                        f"A claim must name rows of its table: {', '.join(names)}. "
                        f"Received: {shown(name)}"
                    )

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def all_claims(self) -> list[Claim]:
        """The claims, and one for each two rows of a column whose published figures differ.

        Where both fail there is no claim.
        """
        return [*self.claims, *_of_figures(self.rows)]


def check_name(argument: str, name: str) -> None:
    """Raises ValueError for a name that cannot be a folder's everywhere."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{argument} must be 1 to 80 letters, digits, '.', '_' or '-', and begin with a letter "
            f"or a digit. Received: {shown(name)}"
        )


def _of_figures(rows):
    for one, other in itertools.combinations(rows, 2):
        if one.column != other.column or one.published is None or other.published is None:
            continue
        errors = [
            float("inf") if row.published.fails else row.published.error_percent
            for row in (one, other)
        ]
        if errors[0] != errors[1]:
            better, worse = (one, other) if errors[0] < errors[1] else (other, one)
            where = " and ".join(dict.fromkeys(row.published.where for row in (better, worse)))
            yield Claim(better.name, worse.name, where)
