"""Copies of the user's units and shortcuts beside the record of an experiment.

With them a report is made, and a run goes on, after a file has changed or gone.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from keras_preact.support import code_files, records
from keras_preact.training import TrainConfig, user_code
from keras_preact.training.user_code import CodeRecord

FOLDER = "code"


def keep(config: TrainConfig, folder: epath.Path) -> dict[str, Any]:
    """Copies the code that a configuration names; returns a record of it for JSON.

    Args:
        config: of a row.
        folder: for the copies.
    """
    kept = {}
    for flag, code in user_code.of(config).items():
        code_files.write_copy(code, folder / flag)
        record = dataclasses.asdict(user_code.record(code))
        kept[flag] = {"text": getattr(config, flag), "record": record}
    return kept


def recall(kept: Any, folder: epath.Path, where: str) -> dict[str, str]:
    """Makes copies known to configurations.

    Args:
        kept: from `keep`, through JSON.
        folder: of the copies.
        where: place in the record, for errors.

    Returns:
        The values of the fields that name this code.

    Raises:
        ValueError: if the record is damaged.
    """
    kept = records.typed(kept, dict[str, _Kept], where, exact=True)
    user_code.remember(folder, {flag: each.record for flag, each in kept.items()})
    return {flag: each.text for flag, each in kept.items()}


def of_any_version(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns flags that name the user's code without its version."""
    return {name: _unversioned(name, value) for name, value in flags.items()}


def _unversioned(name, value):
    reference = user_code.parse(value) if name in user_code.FIELDS else None
    return str(reference._replace(digest=None)) if reference else value


@dataclasses.dataclass(frozen=True)
class _Kept:
    text: str
    record: CodeRecord
