"""Gives a network the variables of a file, all of them or none, and reports."""

import dataclasses
from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_preact.models.foreign.scheme import RefusedError, Variable

_SHOWN = 5
# States of random numbers are no weights.
SEEDS = "seed_generator_state"


@dataclasses.dataclass(frozen=True)
class Report:
    """Which variables of a file a network took.

    Args:
        source: the file.
        origin: what it was, such as "timm's resnetv2".
        network: what it became.
        matched: names of the variables, as in the file.
        unused: names of those in the file that the network lacks.
        missing: paths of those of the network that the file lacks.
        ignored: names of those that no network needs, such as counters.
    """

    source: str
    origin: str
    network: str
    matched: tuple[str, ...]
    unused: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def __str__(self) -> str:
        counters = f", {len(self.ignored):,} counters ignored" if self.ignored else ""
        return (
            f"{self.source}: {self.origin} -> {self.network}. Variables: {len(self.matched):,} "
            f"matched, {len(self.unused):,} unused, {len(self.missing):,} missing{counters}."
        )


def trainable_paths(model: keras.Model) -> dict[str, keras.Variable]:
    """The variables of a model by path, without the states of random numbers."""
    return {v.path: v for v in model.variables if not v.path.endswith(SEEDS)}


def assign(
    model: keras.Model,
    tensors: Mapping[str, np.ndarray],
    source: str,
    origin: str,
    names: Mapping[str, tuple[str, Variable]] | None = None,
    ignored: tuple[str, ...] = (),
) -> Report:
    """Gives each variable of a model its array.

    Args:
        model: of float32 variables.
        tensors: of the file, by name.
        source: the file, for errors.
        origin: what it was, for the report.
        names: of the file's variables and how their arrays change, by our path; by default
            the names are our paths.
        ignored: names for the report.

    Raises:
        RefusedError: at any variable that is unused, missing or of another shape. No variable of
            the model has changed then.
    """
    variables = trainable_paths(model)
    names = names or {path: (path, Variable(path)) for path in variables}
    arrays, missing = {}, []
    for path, variable in variables.items():
        name, change = names.get(path, (path, None))
        if name not in tensors:
            missing.append(f"{path} ({name})" if name != path else path)
            continue
        arrays[path] = _fitting(tensors[name], change, name, path, variable, source, names)
    matched = tuple(names[path][0] for path in arrays)
    unused = tuple(sorted(set(tensors) - set(matched)))
    report = Report(source, origin, described(model), matched, unused, tuple(missing), ignored)
    if unused or missing:
        raise RefusedError(
            f"Every variable of the file must have one in the network, and the other way round. "
            f"Received: {report}{_listed('unused', unused)}{_listed('missing', missing)}"
        )
    for path, array in arrays.items():
        variables[path].assign(array)
    return report


def _fitting(array, change, name, path, variable, source, names):
    ours = None
    own = names[path][0] == path
    if own or array.ndim in change.ranks:
        ours = array if own else change.to_ours(array)
    shape = tuple(variable.shape)
    if ours is None or ours.shape != shape:
        expected = shape if own else change.to_theirs(np.empty(shape, np.float32)).shape
        where = "" if own else f", to become {path}"
        raise RefusedError(
            f"{name} must have the shape {expected}{where}. Received: {tuple(array.shape)} in "
            f"{source}"
        )
    return ours


def _listed(kind, names: Iterable[str]):
    names = list(names)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return f"\n  {kind}: {', '.join(names[:_SHOWN])}{more}"


def described(model: keras.Model) -> str:
    """The call of a builder that makes a network, as far as it is known; else its name."""
    arguments = getattr(model, "arguments", None) or {}
    words = ("depth", "stem", "unit", "layout", "projection")
    given = {word: arguments.get(word) for word in words}
    if arguments.get("shortcut", "identity") != "identity":
        given["shortcut"] = arguments["shortcut"]
    # Orders and shortcuts of the user's own are configurations.
    given = {
        word: value["class_name"] if isinstance(value, dict) else value
        for word, value in given.items()
        if value is not None
    }
    text = ", ".join(f"{word}={value!r}" for word, value in given.items())
    return f"ResNetV2({text})" if text else model.name
