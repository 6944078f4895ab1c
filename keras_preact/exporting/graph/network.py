"""The inference of a network as a TensorFlow graph, with its weights apart."""

import dataclasses
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from keras_preact.layers import grouped
from keras_preact.layers.batch_norm import traced_for_xla

# The name that the builders of `keras_preact.models` give the classifier.
CLASSIFIER = "logits"

_XLA_ATTRIBUTE = "_XlaMustCompile"
_PYTHON_OPERATIONS = ("EagerPyFunc", "PyFunc", "PyFuncStateless")


@dataclasses.dataclass(frozen=True)
class InferenceGraph:
    """The operations of a network and the values of its weights.

    Args:
        definition: the operations; the input and the weights are placeholders.
        input: the placeholder of the input, float32 (batch, height, width, channels).
        outputs: tensors by name: `logits` (batch, classes), `features` (batch, channels).
        weights: values by placeholder.
    """

    definition: tf.compat.v1.GraphDef = dataclasses.field(repr=False)
    input: str
    outputs: Mapping[str, str]
    weights: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def __call__(
        self, images: tf.Tensor, weights: Mapping[str, tf.Tensor | tf.Variable | np.ndarray]
    ) -> dict[str, tf.Tensor]:
        """Adds the network to the graph being built, as in a `tf.function`.

        Args:
            images: float32 (batch, height, width, channels), normalized.
            weights: one for each placeholder.

        Returns:
            The outputs by name.
        """
        tensors = {name: tf.convert_to_tensor(value) for name, value in weights.items()}
        outputs = tf.graph_util.import_graph_def(
            self.definition,
            input_map={self.input: images, **tensors},
            return_elements=list(self.outputs.values()),
            name="network",
        )
        return dict(zip(self.outputs, outputs, strict=True))


def trace(model: keras.Model, image_shape: Sequence[int]) -> InferenceGraph:
    """Returns the graph of a classifier's inference.

    Args:
        model: float32, from normalized images (batch, height, width, channels), with a
            dense layer named `logits`.
        image_shape: (height, width, channels).

    Raises:
        ValueError: if the model uses variables that are not its own, Python functions or
            XLA; servers have neither Python nor XLA.
    """
    grouped.use_in_keras_layers(model)
    classifier = model.get_layer(CLASSIFIER)
    network = keras.Model(model.inputs, {"logits": classifier.output, "features": classifier.input})
    own = [*network.trainable_variables, *network.non_trainable_variables]
    count = len(network.trainable_variables)

    @tf.function
    def infer(images, weights):
        # Servers do not compile it.
        with traced_for_xla(False):
            outputs, _ = network.stateless_call(
                weights[:count], weights[count:], images, training=False
            )
        return outputs

    concrete = infer.get_concrete_function(
        tf.TensorSpec([None, *image_shape], tf.float32, name="images"),
        [tf.TensorSpec(v.shape, v.dtype, name=v.path) for v in own],
    )
    definition = concrete.graph.as_graph_def()
    _check_servable(definition)
    placeholder, *rest = (tensor.op.name for tensor in concrete.inputs)
    values = [v.numpy() for v in own] + [_value(tensor) for tensor in concrete.captured_inputs]
    return InferenceGraph(
        definition,
        placeholder,
        {name: tensor.name for name, tensor in concrete.structured_outputs.items()},
        dict(zip(rest, values, strict=True)),
    )


def _check_servable(definition):
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
        # Reading a missing attribute would add it.
        if _XLA_ATTRIBUTE in function.attr and function.attr[_XLA_ATTRIBUTE].b:
            raise ValueError(
                "A model to export must not be compiled by XLA, which servers lack: call no "
                "tf.function with jit_compile=True, as keras.ops.conv does for groups; "
                f"keras_preact.layers.Conv2D does not. Received: {function.signature.name}"
            )
    if python := [node.name for node in nodes if node.op in _PYTHON_OPERATIONS]:
        raise ValueError(
            "A model to export must not call Python, which servers lack, as tf.py_function and "
            f"tf.numpy_function do. Received: {', '.join(python)}"
        )


def _value(captured):
    if captured.dtype == tf.resource:
        raise ValueError(
            "Every variable must belong to a layer of the model, so that Keras knows it. "
            f"Received a model that uses another variable: {captured!r}"
        )
    return captured.numpy()
