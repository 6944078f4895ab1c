"""Which shortcut a name stands for."""

import inspect
from collections.abc import Iterable

import keras

from keras_preact.layers.shortcuts import (
    ConstantScaling,
    Convolution,
    Dropout,
    ExclusiveGating,
    Identity,
    NoShortcut,
    Shortcut,
    ShortcutOnlyGating,
)
from keras_preact.support.choices import one_of
from keras_preact.support.text import shown

SHORTCUTS = {
    "identity": Identity,
    "constant_scaling": ConstantScaling,
    "exclusive_gating": ExclusiveGating,
    "shortcut_only_gating": ShortcutOnlyGating,
    "convolution": Convolution,
    "dropout": Dropout,
    "none": NoShortcut,
}

_OF_ANY_LAYER = inspect.signature(keras.layers.Layer.__init__).parameters


def get(identifier: str | Shortcut | dict, **arguments) -> Shortcut:
    """The shortcut that a name, a template or a saved configuration stands for.

    A template is never used itself: the result is always a new layer, so that
    every unit owns its variables.

    Args:
        identifier: a key of `SHORTCUTS`, a `Shortcut`, or what
            `keras.saving.serialize_keras_object` made of one.
        **arguments: constructor arguments that replace the template's.

    Raises:
        ValueError: if the name is unknown or an argument is not the shortcut's.
        TypeError: if identifier is none of the three.
    """
    if isinstance(identifier, dict):
        identifier = keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, Shortcut):
        return type(identifier).from_config({**identifier.get_config(), **arguments})
    if isinstance(identifier, str):
        shortcut_class = SHORTCUTS[one_of("shortcut", identifier, SHORTCUTS)]
        _check_arguments(shortcut_class, arguments)
        return shortcut_class(**arguments)
    raise TypeError(
        f"shortcut must be one of {', '.join(SHORTCUTS)} or a keras_preact.layers.Shortcut. "
        f"Received: {identifier!r}"
    )


def check_own_arguments(name: str, arguments: Iterable[str]) -> None:
    """Raises ValueError where an argument is none that this shortcut has of its own.

    Args:
        name: a key of `SHORTCUTS`.
        arguments: their names.
    """
    shortcut_class = SHORTCUTS[one_of("shortcut", name, SHORTCUTS)]
    _check(shortcut_class, arguments, _own(shortcut_class))


def _check_arguments(shortcut_class: type[Shortcut], arguments: dict) -> None:
    _check(shortcut_class, arguments, [*_own(shortcut_class), *_OF_ANY_LAYER])


def _own(shortcut_class):
    parameters = inspect.signature(shortcut_class.__init__).parameters
    return [name for name in parameters if name not in _OF_ANY_LAYER]


def _check(shortcut_class, arguments, allowed):
    unknown = [name for name in arguments if name not in allowed]
    if unknown:
        takes = " and ".join(_own(shortcut_class)) or "no arguments"
        raise ValueError(
            f"{shortcut_class.__name__} takes {takes}. Received: {shown(', '.join(unknown))[1:-1]}"
        )
