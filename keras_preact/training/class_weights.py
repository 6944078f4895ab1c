"""Weights of the classes in the training loss: balanced, or read from a file."""

import csv
import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from keras_preact.data import Dataset
from keras_preact.support import records
from keras_preact.support.paths import usable
from keras_preact.support.text import shown

AUTO = "auto"
_MOST_NAMES = 5


def of_run(
    class_weights: str | None, data: Dataset, recorded: Mapping[str, float] | None
) -> dict[str, float] | None:
    """Returns the weight of each class by name; None if classes are not weighted.

    Args:
        class_weights: "auto", or the path of a file; see `read`.
        data: whose training images are counted for "auto".
        recorded: weights of a run that goes on; they are neither counted nor read again.

    Raises:
        ValueError: as `read` does.
    """
    if class_weights is None:
        return None
    names = data.info.class_names
    if recorded is not None:
        check(recorded, names, "The record of the run")
        return {name: float(recorded[name]) for name in names}
    if class_weights == AUTO:
        return dict(zip(names, balanced(data.class_counts("train")).tolist(), strict=True))
    return read(class_weights, names)


def balanced(counts: np.ndarray) -> np.ndarray:
    """Returns weights that make every class count the same: float64 (classes,).

    The weight of a class is count / (classes * count of the class), as scikit-learn's "balanced",
    so its mean over the images is 1. Classes without images are not counted; they weigh 1.
    With several labels per image the counts are those of labels.

    Args:
        counts: images of each class, int (classes,).
    """
    counts = np.asarray(counts, np.float64)
    here = counts > 0
    weights = np.ones(len(counts))
    weights[here] = counts.sum() / (here.sum() * counts[here])
    return weights


def read(path: str, class_names: Sequence[str]) -> dict[str, float]:
    """Reads the weight of each class from a file.

    Args:
        path: of a JSON object from names to weights, or a CSV with the columns class and weight.
        class_names: every one must be named, and no other.

    Raises:
        ValueError: if a class has no weight, a name is none of a class, a weight is not finite or
            below 0, or all are 0; it names the file.
        OSError: if the file cannot be read.
    """
    file = usable(path, "class_weights", wildcards=True)
    if not file.exists():
        raise ValueError(
            f"class_weights must be {AUTO}, or a file that is there, JSON or CSV. "
            f"Received: class_weights={path}"
        )
    text = records.decoded(records.contents(file))
    with records.named(file, "a file of class weights"):
        pairs = _csv_pairs(text) if path.lower().endswith(".csv") else _json_pairs(text)
    check(pairs, class_names, file)
    return {name: float(pairs[name]) for name in class_names}


def told(weights: Mapping[str, float]) -> str:
    """Returns the range of the weights in words."""
    least, most = (pick(weights, key=weights.get) for pick in (min, max))
    return (
        f"Class weights from {weights[least]:.3g} ({shown(least)}) to {weights[most]:.3g} "
        f"({shown(most)}); config.json has all"
    )


def check(weights: Mapping[str, float], class_names: Sequence[str], where: object) -> None:
    """Raises ValueError if weights are not those of these classes; names where they are from."""
    for what, names in (
        ("without a weight", [name for name in class_names if name not in weights]),
        ("that are none of the data", [name for name in weights if name not in class_names]),
    ):
        if names:
            more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
            listed = ", ".join(map(records.short, names[:_MOST_NAMES]))
            raise ValueError(
                f"{where} must give each class of the data a weight. "
                f"Received: classes {what}: {listed}{more}"
            )
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(
                f"{where} must give each class a finite weight of at least 0. "
                f"Received: {records.short(name)}: {weight}"
            )
    if not any(weights.values()):
        raise ValueError(
            f"{where} must give a class a weight above 0. Received: 0 for each of {len(weights):,}"
        )


def _json_pairs(text):
    values = records.typed(records.parse_json(text), dict)
    for name, value in values.items():
        # True is a number to Python.
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"each weight must be a number. Received: {records.short(name)}: "
                f"{records.short(value)}"
            )
    return values


def _csv_pairs(text):
    rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    pairs = {}
    try:
        if sorted(rows.fieldnames or ()) != ["class", "weight"]:
            raise ValueError(
                "its columns must be class and weight. "
                f"Received: {records.short(rows.fieldnames or [])}"
            )
        for row in rows:
            name, weight = row["class"], row["weight"]
            if name in pairs:
                raise ValueError(f"a class must be named once. Received twice: {name!r:.80}")
            pairs[name] = _number(name, weight)
    except csv.Error as error:
        raise ValueError(f"it must be a CSV. Received: {error}") from None
    return pairs


def _number(name, cell):
    try:
        return float(cell)
    except (TypeError, ValueError):
        raise ValueError(
            f"each weight must be a number. Received: {name!r:.80}: {cell!r:.80}"
        ) from None
