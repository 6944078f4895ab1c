"""The lines of a report: each ends in ok or in what to do."""

import dataclasses
import json

from keras_preact.support.text import printable


@dataclasses.dataclass(frozen=True)
class Line:
    """One finding.

    Args:
        subject: what was looked at, such as "cuDNN".
        finding: what was seen.
        advice: what the user should do, with a command where there is one; None where all is well.
        optional: whether all is well without following the advice.
    """

    subject: str
    finding: str
    advice: str | None = None
    optional: bool = False


_SUBJECT_LETTERS = 22


def text(line: Line) -> str:
    """A finding in one line: "cuDNN  9.3.0  ->  pip install ..."."""
    end = f"->  {_joined(line.advice)}" if line.advice else "ok"
    return f"  {_joined(line.subject).ljust(_SUBJECT_LETTERS)}  {_joined(line.finding)}  {end}"


def as_json(lines: list[Line]) -> str:
    """All findings, as a JSON list of objects with the fields of `Line`."""
    return json.dumps([dataclasses.asdict(line) for line in lines], indent=1)


def _joined(words):
    return printable(" ".join(words.split()))
