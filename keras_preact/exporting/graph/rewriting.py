"""Rewrites a network's graph for inference: the same outputs from fewer operations.

It looks at operations, not at layers, so it works for residual units of any kind.
"""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from keras_preact.exporting.graph.graph_view import (
    ADDITIONS,
    BATCH_NORMS,
    CONVOLUTIONS,
    DEPTHWISE,
    GraphView,
    is_nhwc,
    node_of,
)
from keras_preact.exporting.graph.network import InferenceGraph

NodeDef = tf.compat.v1.NodeDef

_IDENTITIES = ("Identity", "StopGradient", "PreventGradient")
_SOURCES = ("Placeholder", "Const")


@dataclasses.dataclass(frozen=True)
class Step:
    """One rewriting of a graph.

    Args:
        description: a line for the report.
        graph: the graph after the step.
    """

    description: str
    graph: InferenceGraph


def rewrite(graph: InferenceGraph) -> list[Step]:
    """Returns the steps from a traced graph to the graph to export, the last one's."""
    steps = [drop_unneeded(graph)]
    steps.append(evaluate_constants(steps[-1].graph))
    steps.append(fold_batch_norms(steps[-1].graph))
    steps.append(simplify_batch_norms(steps[-1].graph))
    return steps


def drop_unneeded(graph: InferenceGraph) -> Step:
    """Drops identities, and operations that no output depends on, such as batch statistics."""
    needed = pruned(graph)
    before, after = _count_operations(graph), _count_operations(needed)
    return Step(f"dropped {before - after:,} of {before:,} operations that change nothing", needed)


def evaluate_constants(graph: InferenceGraph) -> Step:
    """Replaces operations that depend only on weights by their results."""
    results = _results_of_weights(graph)
    with tf.Graph().as_default() as computed:
        tf.graph_util.import_graph_def(graph.definition, name="")
        with tf.compat.v1.Session(graph=computed) as session:
            feed = {f"{name}:0": value for name, value in graph.weights.items()}
            values = session.run({name: f"{name}:0" for name in results}, feed)
    nodes, weights = GraphView(graph).nodes, dict(graph.weights)
    for name, value in values.items():
        if np.issubdtype(value.dtype, np.floating):
            nodes[name], weights[name] = placeholder(name, value), value
        else:  # such as a shape, which TensorFlow must know while it builds graphs
            nodes[name] = _constant(name, value)
    evaluated = pruned(rewritten(graph, nodes, weights))
    count = _count_operations(graph) - _count_operations(evaluated)
    return Step(f"replaced {count:,} operations on weights by their results", evaluated)


def fold_batch_norms(graph: InferenceGraph) -> Step:
    """Folds BNs, and other scales and shifts of channels, into the convolution before them.

    conv(x, W) * a + b = conv(x, W * a) + b, if nothing else reads the convolution's output.
    A BN after an addition, such as the first one of a pre-activation unit, stays.
    """
    view = GraphView(graph)
    nodes, weights = dict(view.nodes), dict(graph.weights)
    for conv in view.nodes.values():
        is_conv = conv.op in CONVOLUTIONS and is_nhwc(conv)
        kernel = view.value(conv.input[1]) if is_conv else None
        if kernel is None:
            continue
        chain = list(view.affine_chain(conv.name, np.prod(_filters(conv, kernel))))
        if len(chain) > 1 or any(node.op not in ADDITIONS for node, *_ in chain):
            shared = len(view.readers[node_of(conv.input[1])]) > 1
            path = f"{conv.name}/kernel" if shared else node_of(conv.input[1])
            _fold(conv, chain, kernel, path, nodes, weights)
    folded = pruned(rewritten(graph, nodes, weights))
    before, after = _count(graph, BATCH_NORMS), _count(folded, BATCH_NORMS)
    return Step(f"folded {before - after:,} of {before:,} BNs into convolutions", folded)


def simplify_batch_norms(graph: InferenceGraph) -> Step:
    """Replaces each remaining BN by a multiplication and an addition.

    On CPUs they are faster than the fused kernel, which is made for training.
    """
    view = GraphView(graph)
    nodes, weights = dict(view.nodes), dict(graph.weights)
    for bn in view.nodes.values():
        found = view.affine(bn, bn.input[0]) if bn.op in BATCH_NORMS else None
        if found is None:
            continue
        signal = bn.input[0]
        for op, part, value in zip(("Mul", "AddV2"), ("scale", "shift"), found, strict=True):
            constant = f"{bn.name}/{part}"
            weights[constant] = value.astype(np.float32)
            nodes[constant] = placeholder(constant, weights[constant])
            # The addition takes the BN's name, so that its readers stay as they are.
            name = bn.name if op == "AddV2" else f"{bn.name}/scaled"
            nodes[name] = NodeDef(name=name, op=op, input=[signal, constant])
            nodes[name].attr["T"].CopyFrom(bn.attr["T"])
            signal = name
    simplified = pruned(rewritten(graph, nodes, weights))
    count = _count(graph, BATCH_NORMS) - _count(simplified, BATCH_NORMS)
    return Step(f"replaced the other {count:,} BNs by a scale and a shift", simplified)


def _fold(conv, chain, kernel, path, nodes, weights):
    """Replaces a convolution and its chain by a convolution with scaled weights and a bias."""
    scale, shift = np.float64(1), np.float64(0)
    for _, factor, summand in chain:
        scale, shift = scale * factor, shift * factor + summand
    bias, filters = f"{path}/bias", _filters(conv, kernel)
    scale, shift = (np.broadcast_to(value, np.prod(filters)) for value in (scale, shift))
    weights[path] = (kernel * scale.reshape(filters)).astype(kernel.dtype)
    weights[bias] = shift.astype(kernel.dtype)
    for name in (path, bias):
        nodes[name] = placeholder(name, weights[name])
    nodes[conv.name] = scaled = NodeDef()
    scaled.CopyFrom(conv)
    scaled.input[1] = path
    # The bias takes the last node's name, so that its readers stay as they are.
    last = chain[-1][0].name
    nodes[last] = NodeDef(name=last, op="BiasAdd", input=[conv.name, bias])
    if not shift.any():
        nodes[last] = NodeDef(name=last, op="Identity", input=[conv.name])
    nodes[last].attr["T"].CopyFrom(conv.attr["T"])


def _filters(conv, kernel):
    """The shape of the output channels in a kernel: of a depthwise one, its last two dimensions."""
    return kernel.shape[2:] if conv.op == DEPTHWISE else kernel.shape[3:]


def _results_of_weights(graph):
    """The names of operations that depend only on weights and that other operations read."""
    with tf.Graph().as_default() as imported:
        tf.graph_util.import_graph_def(graph.definition, name="")
    fixed, read = set(graph.weights), {}
    for operation in imported.get_operations():
        sources = [tensor.op for tensor in operation.inputs]
        pure = not (operation.control_inputs or operation.op_def.is_stateful)
        inner = sources and pure and fixed.issuperset(source.name for source in sources)
        if operation.type == "Const" or inner:
            fixed.add(operation.name)
        else:
            read |= dict.fromkeys(sources)
    return [
        operation.name
        for operation in read
        if operation.name in fixed
        and operation.type not in _SOURCES
        and len(operation.outputs) == 1
    ]


def pruned(graph: InferenceGraph) -> InferenceGraph:
    """Returns the graph without identities and without operations that no output depends on."""
    nodes = GraphView(graph).nodes

    def source(tensor):
        node = nodes[node_of(tensor)]
        # An identity with control inputs, or used as one, orders other operations.
        if node.op not in _IDENTITIES or len(node.input) > 1 or tensor.startswith("^"):
            return tensor
        return source(node.input[0])

    outputs = {name: source(tensor) for name, tensor in graph.outputs.items()}
    # "name" means the tensor "name:0" in a node's inputs, but an operation elsewhere.
    outputs = {name: t if ":" in t else f"{t}:0" for name, t in outputs.items()}
    waiting, needed = [graph.input, *map(node_of, outputs.values())], {}
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed[name] = node = NodeDef()
            node.CopyFrom(nodes[name])
            del node.input[:]
            node.input.extend(source(tensor) for tensor in nodes[name].input)
            waiting += map(node_of, node.input)
    weights = {name: value for name, value in graph.weights.items() if name in needed}
    in_order = {name: needed[name] for name in nodes if name in needed}
    return rewritten(dataclasses.replace(graph, outputs=outputs), in_order, weights)


def rewritten(
    graph: InferenceGraph, nodes: Mapping[str, NodeDef], weights: Mapping[str, np.ndarray]
) -> InferenceGraph:
    """Returns a graph of other nodes and weights, with the same functions and versions."""
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(graph.definition)
    del definition.node[:]
    definition.node.extend(nodes.values())
    return dataclasses.replace(graph, definition=definition, weights=weights)


def placeholder(name: str, value: np.ndarray) -> NodeDef:
    """Returns the node that stands for a weight."""
    node = NodeDef(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(value.shape).as_proto())
    return node


def _constant(name, value):
    node = NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return node


def _count(graph, operations: Iterable[str]) -> int:
    return sum(node.op in operations for node in graph.definition.node)


def _count_operations(graph) -> int:
    return sum(node.op not in _SOURCES for node in graph.definition.node)
