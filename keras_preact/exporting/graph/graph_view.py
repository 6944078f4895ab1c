"""Queries on a graph: values, readers, and which operations are affine."""

import collections
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_preact.exporting.graph.network import InferenceGraph

NodeDef = tf.compat.v1.NodeDef

BATCH_NORMS = ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
ADDITIONS = ("Add", "AddV2", "BiasAdd")
DEPTHWISE = "DepthwiseConv2dNative"
CONVOLUTIONS = ("Conv2D", DEPTHWISE)
_IMAGE_RANK = 4


class GraphView:
    """A graph's nodes by name, in their order, and the nodes that read their tensors."""

    def __init__(self, graph: InferenceGraph):
        self.nodes = {node.name: node for node in graph.definition.node}
        self._weights = graph.weights
        # A reader is listed once for each input it reads; an output of the graph is None.
        self.readers = collections.defaultdict(list)
        self._tensors_read = set(graph.outputs.values())
        for tensor in graph.outputs.values():
            self.readers[node_of(tensor)].append(None)
        for node in self.nodes.values():
            for tensor in node.input:
                self.readers[node_of(tensor)].append(node)
                self._tensors_read.add(tensor)

    def value(self, tensor: str) -> np.ndarray | None:
        """The value of a weight or a constant; None for any other tensor."""
        name = node_of(tensor)
        if name in self._weights:
            return self._weights[name]
        node = self.nodes[name]
        return tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None

    def affine_chain(
        self, name: str, channels: int
    ) -> Iterator[tuple[NodeDef, np.ndarray, np.ndarray]]:
        """The nodes after a node, in a chain, that only scale and shift its channels.

        Args:
            name: of the node, which returns (batch, height, width, channels).
            channels: number of channels.

        Yields:
            (node, scale, shift), both float64, scalar or (channels,).
        """
        while len(self.readers[name]) == 1 and self.readers[name][0] is not None:
            [node] = self.readers[name]
            found = self.affine(node, name)
            if found is None or any(np.size(value) not in (1, channels) for value in found):
                return
            yield (node, *found)
            name = node.name

    def affine(self, node: NodeDef, signal: str) -> tuple[np.ndarray, np.ndarray] | None:
        """(scale, shift) of the signal's channels; None if the node is not affine."""
        own = [tensor in (signal, f"{signal}:0") for tensor in node.input]
        if sum(own) != 1 or not is_nhwc(node):
            return None
        position = own.index(True)
        others = [self.value(tensor) for tensor in node.input if tensor != node.input[position]]
        if not others or any(other is None for other in others):
            return None
        if node.op in BATCH_NORMS:
            return self._of_batch_norm(node, others) if position == 0 else None
        return _of_arithmetic(node.op, _per_channel(others[0]), signal_first=position == 0)

    def _of_batch_norm(self, node, others):
        statistics = {f"{node.name}:{number}" for number in range(1, 6)}
        if node.attr["is_training"].b or statistics & self._tensors_read:
            return None
        gamma, beta, mean, variance = (other.astype(np.float64) for other in others)
        scale = gamma / np.sqrt(variance + node.attr["epsilon"].f)
        return scale, beta - mean * scale


def node_of(tensor: str) -> str:
    """The name of the node that a tensor, or a control dependency, comes from."""
    return tensor.removeprefix("^").partition(":")[0]


def is_nhwc(node: NodeDef) -> bool:
    """Whether the channels of a node's images come last; true for a node that does not say."""
    return "data_format" not in node.attr or node.attr["data_format"].s == b"NHWC"


def _per_channel(value):
    """A constant, if it is the same for all pixels, as float64 (channels,) or scalar; else None."""
    if value.ndim > _IMAGE_RANK or value.size != (value.shape or (1,))[-1]:
        return None
    return value.astype(np.float64).reshape(value.shape[-1:])


def _of_arithmetic(op, other, signal_first):
    one, zero = np.float64(1), np.float64(0)
    if other is None:
        return None
    if op in ADDITIONS:
        return one, other
    if op == "Mul":
        return other, zero
    if op == "Sub" and signal_first:
        return one, -other
    if op == "RealDiv" and signal_first:
        return 1 / other, zero
    return None
