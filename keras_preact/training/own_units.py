"""The units and shortcuts that a configuration names: those of the tables, and the user's own."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

import keras
from keras.src import backend  # the only place of compute_output_spec

from keras_preact.layers import (
    ORDERS,
    SHORTCUTS,
    ActivationOrder,
    Shortcut,
    activation_order,
    shortcuts,
)
from keras_preact.support import code_files, own_code
from keras_preact.support.choices import one_of
from keras_preact.support.options import LARGEST
from keras_preact.support.own_code import CodeError, GoneError
from keras_preact.support.text import shown
from keras_preact.training import user_code

if TYPE_CHECKING:
    from keras_preact.training.config import TrainConfig

_CALL = ("filters", "strides", "first_in_network", "name")
_FACTORY = (
    "an ActivationOrder, or a factory: a function or a Keras layer class, called with "
    f"{', '.join(f'{name}=' for name in _CALL[:-1])} and name=, that returns a layer"
)
_SHORTCUT = "a subclass of keras_preact.layers.Shortcut, or an instance of one"


def pinned(flag: str, text: str, may_be_gone: bool) -> str:
    """Returns a text with the hash of the code that it names, and imports that code.

    Args:
        flag: "unit" or "shortcut".
        text: a name of a table, which is returned as it is, or that of code.
        may_be_gone: whether a file that is not there is left to the folder of a run.

    Raises:
        ValueError: if there is no such file or name in it, or the code raises.
    """
    reference = user_code.parse(text)
    if reference is None or reference.digest:
        return text
    if not reference.name:
        raise ValueError(f"{flag} must be {user_code.OWN}. Received: {flag}={shown(text)}")
    try:
        code = code_files.read(reference.where, flag)
    except GoneError:
        if may_be_gone:
            return text
        raise
    user_code.known.setdefault(code.digest, code)
    reference = reference._replace(digest=code.digest)
    _look_up(flag, reference)
    return str(reference)


def _look_up(flag, reference):
    """The object of a name in code."""
    code = user_code.find(flag, reference)
    is_new = not code.is_loaded
    registered = dict(keras.saving.get_custom_objects())
    module = code.load()
    if is_new:
        _keep_registered(registered)
    if not reference.name.isidentifier() or not hasattr(module, reference.name):
        names = [name for name, value in vars(module).items() if _fits(flag, value)]
        rule = f"the name of {_FACTORY if flag == 'unit' else _SHORTCUT}, in {code.place}"
        one_of(flag, reference.name, names, rule)
    return getattr(module, reference.name)


def _keep_registered(before):
    """Gives names back to the classes of other modules that had them with Keras before.

    Which class a saved layer is of is found by its module first; see `own_code.find_class`.
    """
    now = keras.saving.get_custom_objects()
    for name, value in before.items():
        if now.get(name) is not value and own_code.find_class(value.__module__, name) is None:
            now[name] = value


def _fits(flag, value):
    """Whether an object can be a unit, or a shortcut."""
    is_shortcut_class = isinstance(value, type) and issubclass(value, Shortcut)
    if flag == "shortcut":
        return (is_shortcut_class and value is not Shortcut) or isinstance(value, Shortcut)
    if isinstance(value, type):
        return issubclass(value, keras.layers.Layer) and not is_shortcut_class
    is_factory = callable(value) and not isinstance(value, keras.layers.Layer)
    return is_factory or isinstance(value, ActivationOrder)


def _object(flag, reference):
    """The unit or shortcut of a name; raises ValueError if it is something else."""
    found, rule = _look_up(flag, reference), _FACTORY if flag == "unit" else _SHORTCUT
    if not _fits(flag, found):
        raise ValueError(
            f"{flag} must name {rule}. Received: {reference.where}:{reference.name}, which is "
            f"{_kind(found)}"
        )
    return found


def _kind(value):
    if isinstance(value, type):
        return f"the class {value.__name__}"
    article = "an" if type(value).__name__[:1].lower() in "aeiou" else "a"
    return f"{article} {type(value).__name__}"


class Factory:
    """A factory of the user's; what it raises names its file and line.

    Args:
        function: that makes a layer.
        name: in its module.
        place: the file of the module.
    """

    def __init__(self, function: Callable[..., keras.layers.Layer], name: str, place: str):
        self._function, self._place, self.__name__ = function, place, name

    def __call__(self, **arguments) -> keras.layers.Layer:
        with own_code.blamed(f"{self.where}, in {self.__name__}"):
            layer = self._function(**arguments)
        name = getattr(layer, "name", None)
        if not isinstance(layer, keras.layers.Layer) or name != arguments["name"]:
            raise CodeError(
                f"{self.where}: {self.__name__} must return a Keras layer of the name that it is "
                f"given, {arguments['name']!r}. Received: {_kind(layer)}"
                + (f" named {shown(str(name))}" if name else "")
            )
        return layer

    @property
    def where(self) -> str:
        """File and line of the factory."""
        function = inspect.unwrap(getattr(self._function, "func", self._function))
        code = getattr(function, "__code__", None) or getattr(function.__init__, "__code__", None)
        if code is not None and code.co_filename == self._place:
            return f"{self._place}, line {code.co_firstlineno}"
        return self._place

    def check_signature(self) -> None:
        """Raises ValueError if the factory does not take the arguments that it is given."""
        try:
            inspect.signature(self._function).bind(**dict.fromkeys(_CALL))
        except TypeError as error:
            raise CodeError(
                f"{self.where}: {self.__name__} must be {_FACTORY}. Received: one with another "
                f"signature: {error}"
            ) from error
        except ValueError:
            return  # Python knows no signature of it

    def __repr__(self) -> str:
        return f"<{self.__name__} of {self._place}>"


def unit(text: str) -> str | ActivationOrder | Factory:
    """Returns the unit that a field names, as `ResNetV2` takes it.

    Raises:
        ValueError: if it is none, or its code is not there or raises.
    """
    reference = user_code.parse(text)
    if reference is None:
        return one_of("unit", text, ORDERS, f"one of {', '.join(ORDERS)}, or {user_code.OWN}")
    found = _object("unit", reference)
    if isinstance(found, ActivationOrder):
        return found
    return Factory(found, reference.name, user_code.find("unit", reference).place)


def shortcut(text: str, arguments: str) -> Shortcut:
    """Returns the shortcut that the fields name.

    Args:
        text: a name of the table, or that of code.
        arguments: of its constructor, as in rate=0.5,rescale=True.

    Raises:
        ValueError: if it is none, its code is not there or raises, or an argument is not its own.
    """
    values = _values(arguments)
    reference = user_code.parse(text)
    if reference is None:
        one_of("shortcut", text, SHORTCUTS, f"one of {', '.join(SHORTCUTS)}, or {user_code.OWN}")
        shortcuts.check_own_arguments(text, values)
        return shortcuts.get(text, **values)
    found = _object("shortcut", reference)
    if isinstance(found, Shortcut):
        if values:
            raise ValueError(
                "shortcut_arguments are for a class of shortcuts; an instance has its own. "
                f"Received: shortcut={reference.name}, an instance, shortcut_arguments="
                f"{shown(arguments)}"
            )
        return found
    shortcuts.check_own_arguments(found, values)
    with own_code.blamed(user_code.find("shortcut", reference).place):
        return found(**values)


def try_out(network: keras.Model) -> None:
    """Calls the first unit of a network symbolically, so that what it raises is known early.

    Keras itself calls no layer that tells the shape of its output.
    """
    first = next(layer for layer in network.layers if layer.name == "stage1_unit1")
    images = keras.KerasTensor(first.input.shape, first.compute_dtype)
    for training in (True, False):
        backend.compute_output_spec(functools.partial(first, training=training), images)


def _values(arguments):
    values = {}
    for part in filter(None, arguments.split(",")):
        name, _, text = part.partition("=")
        value = _number(text.strip())
        if value is None or not abs(value) <= LARGEST:
            raise ValueError(
                "shortcut_arguments must be NAME=VALUE,NAME=VALUE, each value a number, True "
                f"or False. Received: shortcut_arguments={shown(arguments)}"
            )
        values[name.strip()] = value
    return values


def _number(text):
    """Parses an int, a float, True or False; returns None for anything else."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def check(config: "TrainConfig") -> None:
    """Raises ValueError if unit or shortcut contradict another field, or are no unit and shortcut.

    Code from the folder of a run is left alone until it is needed.
    """
    if not user_code.is_known(config):
        return
    shortcut(config.shortcut, config.shortcut_arguments)
    if not isinstance(factory := unit(config.unit), Factory):
        return
    factory.check_signature()
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    decided = ("shortcut", "shortcut_arguments", "projection", "stochastic_depth_rate", "layout")
    given = [
        f"{name}={getattr(config, name)!r}"
        for name in decided
        if getattr(config, name) != defaults[name]
    ]
    if given:
        raise ValueError(
            f"The factory unit={factory.__name__} decides on its shortcut, projection, stochastic "
            f"depth and layout itself: leave these flags out. Received: {', '.join(given)}"
        )


def order(config: "TrainConfig") -> ActivationOrder:
    """The order of BN and ReLU that stem and head of a configuration's network follow.

    Raises:
        ValueError: as `unit` does, or if a factory makes no layer.
    """
    found = unit(config.unit)
    if isinstance(found, Factory):
        layer = found(filters=16, strides=1, first_in_network=True, name="stage1_unit1")
        found = getattr(layer, "order", "full_preactivation")
    return activation_order.get(found)
