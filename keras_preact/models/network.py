"""A functional Keras model that knows its architecture and its preprocessing."""

from typing import Any

import keras
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib

from keras_preact.layers import (
    ORDERS,
    SHORTCUTS,
    ActivationOrder,
    Preprocessing,
    Shortcut,
    shortcuts,
)
from keras_preact.layers.quick_variables import quick_variables
from keras_preact.models.quick_store import QuickStore
from keras_preact.support import own_code

_RECORDS = ("arguments", "preprocessing")


@keras.saving.register_keras_serializable(package="keras_preact")
class Network(keras.Model):
    """A network of a builder: a functional `keras.Model` with two records.

    Both are saved in a `.keras` file and come back with it.

    Attributes:
        arguments: of `ResNetV2`, by name, as JSON knows them: those that decide which network
            it is. None where a unit factory made it, which has no name.
        preprocessing: how images become its input, and the names of its classes; None if it is
            not known. May be set.
    """

    # Keras recognizes a functional model by these parameters.
    def __init__(self, inputs, outputs, name=None, **kwargs):
        records = {record: kwargs.pop(record, None) for record in _RECORDS}
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.arguments = records["arguments"]
        preprocessing = records["preprocessing"]
        if isinstance(preprocessing, dict):
            preprocessing = keras.saving.deserialize_keras_object(preprocessing)
        self.preprocessing = preprocessing

    def get_config(self):
        config = super().get_config()
        if self.arguments is not None:
            config["arguments"] = dict(self.arguments)
        if self.preprocessing is not None:
            config["preprocessing"] = keras.saving.serialize_keras_object(self.preprocessing)
        return config

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Layers of one name may be of several versions of the user's code.
        own = {
            layer["registered_name"]: found
            for layer in config.get("layers", ())
            if (found := own_code.find_class(str(layer.get("module")), layer["class_name"]))
        }
        own = {**global_state.get_global_attribute("custom_objects_scope_dict", {}), **own}
        with quick_variables(), keras.saving.custom_object_scope(own):
            return super().from_config(config, custom_objects=custom_objects)

    # Keras calls these two on the network before it walks through its layers.
    def save_own_variables(self, store):
        _remember_skipped_attributes()
        QuickStore.take_over(store)
        super().save_own_variables(store)

    def load_own_variables(self, store):
        _remember_skipped_attributes()
        QuickStore.take_over(store)
        super().load_own_variables(store)


def _remember_skipped_attributes():
    """Lets Keras find out once which attributes of layers it need not save.

    Keras 3.15 keeps the answer under another name than it looks for, so it makes a layer to find
    out for each layer of a network: a third of the time to save or load a deep one.
    """
    for kind in ("Functional", "Layer"):
        skipped = saving_lib.get_attr_skipset(kind)
        global_state.set_global_attribute(f"saving_attr_skiplist_{kind}", skipped)


def saved_choice(choice: str | ActivationOrder | Shortcut) -> str | dict[str, Any]:
    """A unit's order or a shortcut as JSON knows it: by its name, if the tables have one for it."""
    if isinstance(choice, str):
        return choice
    for name, order in ORDERS.items():
        if choice == order:
            return name
    for name, shortcut_class in SHORTCUTS.items():
        if type(choice) is shortcut_class and _settings(choice) == _settings(shortcut_class()):
            return name
    return keras.saving.serialize_keras_object(choice)


def _settings(shortcut):
    own_by_place = ("name", "dtype", "trainable", "strides")
    config = shortcut.get_config()
    return {name: value for name, value in config.items() if name not in own_by_place}


def preprocessing_of(model: keras.Model) -> Preprocessing | None:
    """Returns the preprocessing that a model carries; None if it carries none."""
    return getattr(model, "preprocessing", None)


def arguments_of(model: keras.Model) -> dict[str, Any] | None:
    """Returns the arguments of `ResNetV2` that make a network like this one, by name.

    They do not include input_shape, classes, weights and name. None if they are not known.
    """
    arguments = getattr(model, "arguments", None)
    if arguments is None:
        return None
    # Orders and shortcuts of the user's own are saved as configurations.
    return {
        name: shortcuts.deserialize(value) if isinstance(value, dict) else value
        for name, value in arguments.items()
    }
