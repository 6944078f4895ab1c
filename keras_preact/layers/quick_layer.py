"""Keras layers whose plain attributes are set quickly."""

import keras

_PLAIN = frozenset({bool, float, int, str, type(None)})


class QuickLayer(keras.layers.Layer):
    """A base class of layers of which a network has hundreds.

    Keras looks at each value that is set as an attribute of a layer: it may be a variable or
    another layer. Of a number, a text or None it need not.
    """

    def __setattr__(self, name, value):
        # What is replaced may be tracked.
        if type(value) in _PLAIN and type(vars(self).get(name)) in _PLAIN:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)
