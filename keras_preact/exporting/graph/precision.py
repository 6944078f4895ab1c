"""Makes a network compute in bfloat16 or float16."""

import dataclasses

import tensorflow as tf

from keras_preact.exporting.graph.graph_view import CONVOLUTIONS, GraphView, node_of
from keras_preact.exporting.graph.network import InferenceGraph
from keras_preact.exporting.graph.rewriting import Step, placeholder, rewritten
from keras_preact.support.choices import one_of

PRECISIONS = ("float32", "bfloat16", "float16")

NodeDef = tf.compat.v1.NodeDef

# Operations on feature maps, and how many of their inputs have the type of their result. They are
# lowered after a convolution. All others keep float32, such as the mean over pixels and the
# classifier after it, which sum many values.
_INPUTS = {
    **dict.fromkeys(CONVOLUTIONS, 2),
    "Add": 2,
    "AddV2": 2,
    "BiasAdd": 2,
    "MaxPool": 1,
    "Mul": 2,
    "Pad": 1,
    "Relu": 1,
    "Relu6": 1,
    "Sigmoid": 1,
    "Sub": 2,
    "Tanh": 1,
}
_FLOAT32 = tf.float32.as_datatype_enum


def lower_precision(graph: InferenceGraph, precision: str) -> Step:
    """Computes feature maps in another precision; the graph's input and outputs stay float32.

    Weights of the operations concerned are stored in the precision too. It is the last
    rewriting: BNs are folded in float32, so that weights are rounded once.

    Args:
        graph: to rewrite.
        precision: "bfloat16" or "float16".

    Raises:
        ValueError: if the precision is another one.
    """
    one_of("precision", precision, PRECISIONS[1:])
    lowering = _Lowering(graph, tf.as_dtype(precision))
    lowered = lowering.run()
    count = len(lowering.lowered)
    return Step(f"made {count:,} operations compute in {precision}", lowered)


class _Lowering:
    """The nodes and weights of a graph while some of its operations are lowered."""

    def __init__(self, graph, dtype):
        self._graph, self._dtype = graph, dtype
        self._view = GraphView(graph)
        self._nodes, self._weights = dict(self._view.nodes), dict(graph.weights)
        self.lowered = self._choose()

    def _choose(self):
        chosen = set()
        waiting = [node for node in self._view.nodes.values() if node.op in CONVOLUTIONS]
        while waiting:
            node = waiting.pop()
            # An output of the graph has no node.
            if node is None or node.name in chosen or node.op not in _INPUTS:
                continue
            if node.attr["T"].type == _FLOAT32:
                chosen.add(node.name)
                waiting += self._view.readers[node.name]
        return chosen

    def run(self):
        for name, node in self._view.nodes.items():
            self._nodes[name] = changed = NodeDef()
            changed.CopyFrom(node)
            typed = 0
            if name in self.lowered:
                changed.attr["T"].type = self._dtype.as_datatype_enum
                typed = _INPUTS[node.op]
            for position, tensor in enumerate(node.input):
                if position < typed:
                    changed.input[position] = self._lower(tensor)
                elif node_of(tensor) in self.lowered and not tensor.startswith("^"):
                    changed.input[position] = self._raise(tensor)
        outputs = {
            name: f"{self._raise(tensor)}:0" if node_of(tensor) in self.lowered else tensor
            for name, tensor in self._graph.outputs.items()
        }
        unread = self._weights.keys() - {
            node_of(tensor) for node in self._nodes.values() for tensor in node.input
        }
        kept = {name: node for name, node in self._nodes.items() if name not in unread}
        weights = {name: value for name, value in self._weights.items() if name not in unread}
        return rewritten(dataclasses.replace(self._graph, outputs=outputs), kept, weights)

    def _lower(self, tensor):
        """The tensor that holds a tensor's values in the precision."""
        name = node_of(tensor)
        if name in self.lowered:
            return tensor
        lowered = f"{tensor.replace(':', '_')}/{self._dtype.name}"
        if name in self._graph.weights:
            value = self._graph.weights[name].astype(self._dtype.as_numpy_dtype)
            self._weights[lowered], self._nodes[lowered] = value, placeholder(lowered, value)
        else:
            self._nodes[lowered] = _cast(lowered, tensor, tf.float32, self._dtype)
        return lowered

    def _raise(self, tensor):
        raised = f"{node_of(tensor)}/float32"
        self._nodes[raised] = _cast(raised, tensor.removesuffix(":0"), self._dtype, tf.float32)
        return raised


def _cast(name, tensor, source, target):
    node = NodeDef(name=name, op="Cast", input=[tensor])
    node.attr["SrcT"].type = source.as_datatype_enum
    node.attr["DstT"].type = target.as_datatype_enum
    return node
