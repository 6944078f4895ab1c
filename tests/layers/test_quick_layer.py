"""Plain attributes of layers are set quickly; variables and layers are tracked as by Keras."""

import keras

from keras_preact.layers.quick_layer import QuickLayer


class _Layer(QuickLayer):
    def build(self, input_shape):
        self.number, self.text, self.nothing = 1, "a", None
        self.weight = self.add_weight(name="weight", shape=(2,), initializer="ones")
        self.inner = keras.layers.Dense(2, name="inner")
        self.inner.build(input_shape)
        self.parts = [keras.layers.Dense(1, name="last")]
        self.parts[0].build(input_shape)

    def call(self, x):
        return self.parts[0](self.inner(x) * self.weight)


def test_attributes_are_set():
    layer = _Layer()
    layer.build((None, 3))
    assert (layer.number, layer.text, layer.nothing) == (1, "a", None)
    layer.number = 2.5
    assert layer.number == 2.5


def test_properties_are_set():
    layer = _Layer()
    layer.build((None, 3))
    layer.trainable = False
    assert not layer.trainable
    assert layer.trainable_variables == []
    assert not layer.inner.trainable


def test_variables_and_layers_are_tracked():
    layer = _Layer(name="outer")
    layer.build((None, 2))
    assert [v.path for v in layer.variables] == [
        "outer/weight",
        "outer/inner/kernel",
        "outer/inner/bias",
        "outer/last/kernel",
        "outer/last/bias",
    ]
