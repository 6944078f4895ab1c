"""Moves scales of channels through ReLUs into the convolutions that follow."""

import numpy as np
import tensorflow as tf

from keras_preact.exporting.graph.graph_view import (
    CONVOLUTIONS,
    DEPTHWISE,
    GraphView,
    is_nhwc,
    node_of,
)
from keras_preact.exporting.graph.network import InferenceGraph
from keras_preact.exporting.graph.rewriting import Step, placeholder, pruned, rewritten

NodeDef = tf.compat.v1.NodeDef


# Beyond these, quotients may overflow in float16, and scaled kernels lose digits.
_LEAST_IN_FLOAT16, _MOST_IN_FLOAT16 = 1 / 16, 1024.0


def move_scales(graph: InferenceGraph, precision: str = "float32") -> Step:
    """Moves the scale of a BN before a ReLU into the convolutions after it.

    conv(relu(x * a + b), W) = conv(relu(x + b / a), a W), where all of a are positive: the
    activations of a pre-activation unit are then read and written once less. It takes the graph
    of `rewriting.simplify_batch_norms`. A BN with a scale that is zero or negative stays, and so
    does one whose ReLU others than convolutions read.

    Args:
        graph: to rewrite.
        precision: that the graph will compute in; in float16, scales below 1/16 and shifts that
            become larger than 1024 stay too.
    """
    view = GraphView(graph)
    nodes, weights = dict(view.nodes), dict(graph.weights)
    candidates = [node for node in view.nodes.values() if node.op == "Relu"]
    limits = 0.0, float(np.finfo(np.float32).max)
    if precision == "float16":
        limits = _LEAST_IN_FLOAT16, _MOST_IN_FLOAT16
    moved = sum(_move(relu, view, nodes, weights, limits) for relu in candidates)
    description = f"moved {moved:,} scales through ReLUs into convolutions"
    return Step(description, pruned(rewritten(graph, nodes, weights)))


def _move(relu, view, nodes, weights, limits):
    """Moves one scale, and returns whether it could be moved."""
    shift = _only_source(view, relu, 0, "AddV2")
    scale = _only_source(view, shift, 0, "Mul") if shift else None
    if scale is None:
        return False
    factor, summand = view.value(scale.input[1]), view.value(shift.input[1])
    convs = _reading_convs(view, relu, np.size(factor))
    if convs is None or summand is None or not _divides(factor, summand, *limits):
        return False
    factor = factor.astype(np.float64)
    for conv in convs:
        kernel = view.value(conv.input[1])
        scaled = kernel * _of_inputs(factor, conv, kernel)
        _replace(conv, 1, scaled.astype(kernel.dtype), nodes, weights)
    _replace(shift, 1, (summand / factor).astype(summand.dtype), nodes, weights)
    nodes[shift.name].input[0] = scale.input[0]
    return True


def _only_source(view, node, position, op):
    """The node of a kind that feeds a node and no other; None if there is none."""
    source = view.nodes[node_of(node.input[position])]
    alone = source.op == op and len(view.readers[source.name]) == 1
    return source if alone and len(source.input) == 2 else None


def _divides(factor, summand, least, most):
    """Whether (channels,) factors exceed `least`, and no quotient exceeds `most`."""
    if factor is None or factor.ndim != 1 or np.shape(summand) != factor.shape:
        return False
    if not (factor > least).all():
        return False
    return bool((np.abs(summand) <= most * factor.astype(np.float64)).all())


def _reading_convs(view, node, channels):
    """The convolutions that read a node, also through zero padding; None if others read it too."""
    convs = []
    for reader in view.readers[node.name]:
        if reader is not None and reader.op == "Pad":
            inner = _reading_convs(view, reader, channels)
        else:
            inner = [reader] if _is_conv_of(view, reader, node.name, channels) else None
        if inner is None:
            return None
        convs += inner
    return convs


def _is_conv_of(view, reader, name, channels):
    if reader is None or reader.op not in CONVOLUTIONS or not is_nhwc(reader):
        return False
    kernel = view.value(reader.input[1])
    if node_of(reader.input[0]) != name or kernel is None:
        return False
    return kernel.shape[2] == channels or (
        reader.op != DEPTHWISE and channels % kernel.shape[2] == 0
    )


def _of_inputs(factor, conv, kernel):
    """The factor (channels,) of each input channel, as the last two dimensions of a kernel."""
    if conv.op == DEPTHWISE:
        return factor[:, None]
    groups = len(factor) // kernel.shape[2]
    return np.repeat(factor.reshape(groups, -1).T, kernel.shape[3] // groups, axis=1)


def _replace(node, position, value, nodes, weights):
    """Gives a node a weight of its own in place of an input, which others may read."""
    name = f"{node.name}/rescaled"
    nodes[name], weights[name] = placeholder(name, value), value
    nodes[node.name] = changed = NodeDef()
    changed.CopyFrom(node)
    changed.input[position] = name
