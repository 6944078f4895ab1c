"""The graph of a unit and of its gradient: traced once, then cut where the gradient needs values.

A training step keeps values of each unit from the forward pass for the backward pass. TensorFlow
keeps every input of every gradient. Of BN, ReLU and what else is cheap, this graph keeps nothing:
the backward pass computes them again from the outputs of convolutions before them, or all of the
unit from its input.
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import keras
import tensorflow as tf

from keras_preact.layers.batch_norm import traced_for_xla
from keras_preact.models.unit_signature import varying_numbers

# How much the forward pass of a unit keeps: all that the gradients read, its input and the outputs
# of its convolutions, or its input alone.
ALL, CONVOLUTIONS, INPUT = "all", "convolutions", "input"

# Operations that cost more to repeat than their outputs cost to keep.
_COSTLY = {
    *("Conv2D", "DepthwiseConv2dNative", "Conv3D", "MatMul", "BatchMatMulV2", "Einsum"),
    # Calls of functions may compute anything.
    *("PartitionedCall", "StatelessIf", "StatelessWhile"),
}
# TensorFlow counts it among the operations with a state, but it is the same at each call.
_CONSTANT = {"DeviceIndex"}


class NotPureError(ValueError):
    """A unit is no function of its input and its variables alone."""


class UnitGraph:
    """A unit as a function of its input and the values of its variables, and the gradient of it.

    Args:
        unit: built; any layer that maps images to images.
        images: shape and type of its input: (batch, height, width, channels).
        training: whether the unit trains.
        compiles: whether XLA compiles the calling function, as for `traced_for_xla`.
        own_compilation: whether XLA compiles each part of this graph on its own.

    Attributes:
        output: shape and type of the output.

    Raises:
        NotPureError: if the unit reads or changes anything else, as draws of tf.random do.
    """

    def __init__(
        self,
        unit: keras.layers.Layer,
        images: tf.TensorSpec,
        training: bool,
        compiles: bool | None = None,
        own_compilation: bool = False,
    ):
        self._own_compilation = own_compilation
        compiles = True if own_compilation else compiles
        weights = len(unit.trainable_variables)
        values = [*unit.trainable_variables, *unit.non_trainable_variables]
        specs = [tf.TensorSpec(value.shape, value.dtype) for value in values]
        specs += [tf.TensorSpec([], tf.float64) for _ in varying_numbers(unit)]

        def trace(x, *values):
            with tf.GradientTape() as tape:
                watched = [x, *values[:weights]]
                tape.watch(watched)
                y, *changed = _call(unit, x, values, training, compiles)
            self._names = {op.name for op in y.graph.get_operations()}
            self._upstream = upstream = tf.zeros_like(y)
            gradients = ()
            if training:
                gradients = tape.gradient(
                    y, watched, output_gradients=upstream, unconnected_gradients="zero"
                )
            return [y, *changed], list(map(tf.convert_to_tensor, gradients))

        traced = tf.function(trace, autograph=False)
        self._graph = graph = traced.get_concrete_function(images, *specs).graph
        _check_pure(unit, graph)
        self._x, *self._values = graph.inputs
        self._results, self._gradients = graph.structured_outputs
        self.output = tf.TensorSpec(self._results[0].shape, self._results[0].dtype)
        self._nodes = graph.as_graph_def()
        self._kept: dict[str | None, tuple[tf.Tensor, ...]] = {None: ()}
        self._compiled: dict[tuple, Callable] = {}

    def forward(
        self, x: tf.Tensor, values: Sequence[tf.Tensor], keeps: str | None = None
    ) -> tuple[tf.Tensor, list[tf.Tensor], list[tf.Tensor]]:
        """Returns the output, the new values of what is not trained, and what is kept.

        Args:
            x: (batch, height, width, channels).
            values: of the trainable variables, of the others, and of `varying_numbers`.
            keeps: `ALL`, `CONVOLUTIONS`, `INPUT`, or None to keep nothing.
        """
        kept = self.kept(keeps)
        results = self._compute([*self._results, *kept], [self._x, *self._values], [x, *values])
        count = len(self._results)
        return results[0], results[1:count], results[count:]

    def recompute(
        self, x: tf.Tensor, values: Sequence[tf.Tensor], keeps: str
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the output and what is kept, as `forward` does."""
        results = [self._results[0], *self.kept(keeps)]
        y, *kept = self._compute(results, [self._x, *self._values], [x, *values])
        return y, kept

    def backward(
        self,
        kept: Sequence[tf.Tensor],
        upstream: tf.Tensor,
        values: Sequence[tf.Tensor],
        keeps: str,
        weights: bool = True,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the gradients by the input and by the trainable variables.

        Args:
            kept: by `forward`.
            upstream: the gradient by the output.
            values: as for `forward`.
            keeps: as for `forward`.
            weights: whether the trainable variables are to have gradients.
        """
        given = [*self.kept(keeps), self._upstream, *self._values]
        wanted = self._gradients if weights else self._gradients[:1]
        by_input, *by_weights = self._compute(wanted, given, [*kept, upstream, *values])
        return by_input, by_weights

    def kept(self, keeps: str | None) -> tuple[tf.Tensor, ...]:
        """Returns tensors of the shapes and types that `forward` keeps."""
        if keeps not in self._kept:
            given = {tensor.name for tensor in (*self._values, self._upstream)}
            kept = {}

            def ends(tensor):
                is_kept = tensor.op.name in self._names and (
                    (keeps == CONVOLUTIONS and tensor.op.type in _COSTLY)
                    or (keeps == ALL and tensor.op.type != "Const")
                )
                if tensor.name not in given and (is_kept or tensor.name == self._x.name):
                    kept[tensor.name] = tensor
                return tensor.name in kept or tensor.name in given

            _ancestors(self._gradients, ends)
            self._kept[keeps] = tuple(kept.values())
        return self._kept[keeps]

    def _compute(self, wanted, places, values):
        """Computes tensors of the graph from values in some places of it."""
        if not self._own_compilation:
            return self._inline(wanted, places, values)
        key = tuple(t.name for t in wanted), tuple(t.name for t in places)
        if key not in self._compiled:
            inline = functools.partial(self._inline, wanted, places)
            self._compiled[key] = tf.function(inline, jit_compile=True)
        return self._compiled[key](values)

    def _inline(self, wanted, places, values):
        """Copies a part of the graph into the graph that is being traced."""
        given = {place.name: value for place, value in zip(places, values, strict=True)}
        nodes, used = _ancestors(wanted, lambda tensor: tensor.name in given)
        part = tf.compat.v1.GraphDef(versions=self._nodes.versions, library=self._nodes.library)
        for node in self._nodes.node:
            if node.name in nodes:
                part.node.append(node)
                # Of pure operations, nothing but their inputs counts.
                inputs = [name for name in node.input if not name.startswith("^")]
                part.node[-1].input[:] = inputs
                part.node[-1].device = ""
        computed = tf.graph_util.import_graph_def(
            part,
            input_map={name: given[name] for name in used if name in given},
            return_elements=[t.name for t in wanted if t.name not in given],
            name="unit",
        )
        computed = iter(computed)
        return [given[t.name] if t.name in given else next(computed) for t in wanted]


def _check_pure(unit, graph):
    if graph.captures:
        raise NotPureError(f"{unit.name} computes with values that are none of its variables")
    for op in graph.get_operations():
        if op.op_def.is_stateful and op.type not in _CONSTANT:
            raise NotPureError(
                f"{unit.name} has an operation, {op.type}, that is no function of its inputs; "
                "random numbers should come from a keras.random.SeedGenerator"
            )


def _call(unit, x, values, training, compiles):
    """Returns the output of a unit, then the new values of its variables that are not trained."""
    variables = [*unit.trainable_variables, *unit.non_trainable_variables]
    mapping = list(zip(variables, values[: len(variables)], strict=True))
    lent = list(zip(varying_numbers(unit), values[len(variables) :], strict=True))
    own = [getattr(part, name) for (part, name), _ in lent]
    try:
        for (part, name), number in lent:
            setattr(part, name, number)
        with keras.StatelessScope(state_mapping=mapping) as scope, traced_for_xla(compiles):
            y = unit(x, training=training)
    finally:
        for ((part, name), _), number in zip(lent, own, strict=True):
            setattr(part, name, number)
    return [y, *(_current(scope, variable) for variable in unit.non_trainable_variables)]


def _current(scope, variable):
    value = scope.get_current_value(variable)
    return tf.convert_to_tensor(variable.value if value is None else value)


def _ancestors(tensors: Iterable[tf.Tensor], ends: Callable[[tf.Tensor], bool]):
    """Returns the names of the operations that tensors need, and of the tensors in between.

    Args:
        tensors: to compute.
        ends: whether a tensor is given.
    """
    nodes, seen, waiting = set(), set(), list(tensors)
    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if ends(tensor) or tensor.op.name in nodes:
            continue
        nodes.add(tensor.op.name)
        waiting.extend(tensor.op.inputs)
    return nodes, seen
