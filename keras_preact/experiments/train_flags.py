"""Flags of train.py as text, and the fields of its configuration that they set."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from keras_preact.support import flags
from keras_preact.training import TrainConfig
from keras_preact.training.config_rules import EXCLUSIVE

# Fields that differ from run to run, or from call to call.
_OF_RUNS = ("run_dir", "seed", "mode", "resume", "overwrite", "checkpoint")


def read(texts: Sequence[str]) -> dict[str, Any]:
    """Reads flags, as in ["--recipe=cifar10_resnet110", "--unit=original"].

    Returns:
        The fields of `TrainConfig` that they set, those of recipes and flagfiles included.

    Raises:
        ValueError: if a flag is unknown, or its value of another kind.
    """
    return dict(_read(tuple(texts)))


# A report reads the flags of each row for each of its runs.
@functools.lru_cache(maxsize=1024)
def _read(texts):
    values = absl_flags.FlagValues()
    flags.define(TrainConfig, values)
    parse = flags.parser("", TrainConfig, values, recipes=True)
    parse(["train", *texts])
    return flags.given(TrainConfig, values)


def texts(fields: Mapping[str, Any]) -> list[str]:
    """Writes fields as flags: {"unit": "original"} as ["--unit=original"]."""
    return [_text(name, value) for name, value in fields.items() if value is not None]


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merges fields; a later one replaces an earlier one, and those that it excludes."""
    result: dict[str, Any] = {}
    for fields in layers:
        for name in fields:
            for other in _excluded(name):
                result.pop(other, None)
        result |= fields
    return result


def check_of_table(fields: Mapping[str, Any]) -> None:
    """Raises ValueError for fields that an experiment sets itself."""
    if own := [name for name in _OF_RUNS if name in fields]:
        raise ValueError(
            f"{', '.join(_OF_RUNS)} are set for each run by the experiment. "
            f"Received: {', '.join(texts({name: fields[name] for name in own}))}"
        )


def _excluded(name) -> Iterable[str]:
    for pair in EXCLUSIVE:
        if name in pair:
            yield from (other for other in pair if other != name)


def _text(name, value):
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no{name}"
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    return f"--{name}={value}"
