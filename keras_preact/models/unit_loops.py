"""Equal units in a row as one loop over stacked variables, with a backward pass of its own.

A graph with a loop has each kind of unit once, at any depth: six times in a net of 1001 layers, not
333 times. It is traced, optimized and compiled as fast as that of a shallow net.
"""

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from keras_preact.models.unit_graph import ALL, CONVOLUTIONS, INPUT, UnitGraph

REMAT = ("none", "unit", "group", "auto")


@dataclasses.dataclass(frozen=True)
class Remat:
    """How much a training step computes twice to keep less.

    Args:
        kind: one of `REMAT`. "none": each unit keeps its input and the outputs of its
            convolutions; BN and ReLU are computed again. "unit": each unit keeps its input.
            "group": the first unit of every group keeps its input; the backward pass computes one
            group again at a time, and keeps all of it that the gradients read. "auto": groups
            whose length is near the square root of the number of units in a row.
        units: of a group.
    """

    kind: str = "none"
    units: int | None = None

    def group(self, length: int) -> int | None:
        """Returns the number of units of a group, of a row of units; None without groups."""
        match self.kind:
            case "group":
                return min(self.units, length)
            case "auto":
                return max(1, round(math.sqrt(length)))
        return None


class UnitLoop:
    """A row of units of one graph, computed one after the other.

    Args:
        graph: of each unit.
        length: number of units.
        weights: number of trainable variables of a unit.
    """

    def __init__(self, graph: UnitGraph, length: int, weights: int):
        self._graph, self._length, self._weights = graph, length, weights

    def __call__(
        self, x: tf.Tensor, stacks: Sequence[tf.Tensor], numbers: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the output of the last unit, and the new values of what is not trained.

        Args:
            x: input of the first unit.
            stacks: of the trainable variables of all units, and of the others: (length, ...).
            numbers: stacks of the numbers in which units vary.
        """
        values = _Values([*stacks, *numbers])
        y, changed, _ = self._run(x, values, stacks)
        return y, changed

    def differentiable(
        self,
        x: tf.Tensor,
        stacks: Sequence[tf.Tensor],
        numbers: Sequence[tf.Tensor],
        remat: Remat,
        learns: bool = True,
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns what a call returns, with the gradient by x and by the trainable variables.

        Args:
            x, stacks, numbers: see a call.
            remat: what the backward pass computes again.
            learns: whether the trainable variables are to have gradients other than 0.
        """
        group = remat.group(self._length)
        keeps = INPUT if remat.kind == "unit" else CONVOLUTIONS

        @tf.custom_gradient
        def run(x, *stacks):
            values = _Values([*stacks, *numbers])
            if group is None:
                y, changed, kept = self._run(x, values, stacks, keeps)
            else:
                y, changed, kept = self._run_groups(x, values, stacks, group)

            def gradient(upstream, *_):
                arrays = [_array(s) for s in stacks[: self._weights]] if learns else []
                if group is None:
                    begin, end = tf.constant(0), tf.constant(self._length)
                    by_x, arrays = self._back(upstream, values, kept, arrays, begin, end, keeps)
                else:
                    by_x, arrays = self._back_groups(upstream, values, kept, arrays, group)
                by_weights = [array.stack() for array in arrays]
                if not learns:
                    by_weights = [tf.zeros_like(s) for s in stacks[: self._weights]]
                return (by_x, *by_weights, *[None] * (len(stacks) - self._weights))

            return (y, *changed), gradient

        y, *changed = run(x, *stacks)
        return y, changed

    def _run(self, x, values, stacks, keeps=None):
        """Runs all units; returns output, changed stacks, and arrays of what they keep."""
        changed = [_array(stack) for stack in stacks[self._weights :]]
        kept = self._arrays(self._length, keeps)
        begin, end = tf.constant(0), tf.constant(self._length)
        x, changed, kept = self._advance(x, values, changed, kept, begin, end, keeps)
        return x, [array.stack() for array in changed], kept

    def _run_groups(self, x, values, stacks, group):
        """Runs all units; returns output, changed stacks, and the array of inputs of groups."""
        groups = -(-self._length // group)
        changed = [_array(stack) for stack in stacks[self._weights :]]
        inputs = tf.TensorArray(x.dtype, groups, element_shape=x.shape)

        def body(number, x, changed, inputs):
            inputs = inputs.write(number, x)
            begin, end = self._bounds(number, group)
            x, changed, _ = self._advance(x, values, changed, [], begin, end)
            return number + 1, x, changed, inputs

        _, x, changed, inputs = tf.while_loop(
            lambda number, *_: number < groups,
            body,
            (0, x, changed, inputs),
            parallel_iterations=1,
            maximum_iterations=groups,
        )
        return x, [array.stack() for array in changed], inputs

    def _advance(self, x, values, changed, kept, begin, end, keeps=None):
        """Runs the units from begin to end."""

        def body(number, x, changed, kept):
            y, new, keep = self._graph.forward(x, values.read(number), keeps)
            changed = [a.write(number, value) for a, value in zip(changed, new, strict=True)]
            kept = [a.write(number, value) for a, value in zip(kept, keep, strict=True)]
            return number + 1, y, changed, kept

        _, x, changed, kept = tf.while_loop(
            lambda number, *_: number < end,
            body,
            (begin, x, changed, kept),
            parallel_iterations=1,
            maximum_iterations=self._length,
        )
        return x, changed, kept

    def _back(self, upstream, values, kept, arrays, begin, end, keeps, first=0):
        """Takes the gradient from unit `end` to unit `begin`; writes those by weights to arrays.

        Args:
            first: number of the unit to which the first elements of kept belong.
        """

        def body(number, upstream, arrays):
            upstream, by_weights = self._graph.backward(
                [array.read(number - first) for array in kept],
                upstream,
                values.read(number),
                keeps,
                bool(arrays),
            )
            written = [a.write(number, value) for a, value in zip(arrays, by_weights, strict=True)]
            return number - 1, upstream, written

        _, upstream, arrays = tf.while_loop(
            lambda number, *_: number >= begin,
            body,
            (end - 1, upstream, arrays),
            parallel_iterations=1,
            maximum_iterations=self._length,
        )
        return upstream, arrays

    def _back_groups(self, upstream, values, inputs, arrays, group):
        """Takes the gradient through one group after the other, from the last to the first."""

        def body(number, upstream, arrays):
            begin, end = self._bounds(number, group)

            def again(unit, x, kept):
                y, keep = self._graph.recompute(x, values.read(unit), ALL)
                kept = [a.write(unit - begin, k) for a, k in zip(kept, keep, strict=True)]
                return unit + 1, y, kept

            _, _, kept = tf.while_loop(
                lambda unit, *_: unit < end,
                again,
                (begin, inputs.read(number), self._arrays(group, ALL)),
                parallel_iterations=1,
                maximum_iterations=group,
            )
            upstream, arrays = self._back(upstream, values, kept, arrays, begin, end, ALL, begin)
            return number - 1, upstream, arrays

        groups = -(-self._length // group)
        _, upstream, arrays = tf.while_loop(
            lambda number, *_: number >= 0,
            body,
            (groups - 1, upstream, arrays),
            parallel_iterations=1,
            maximum_iterations=groups,
        )
        return upstream, arrays

    def _bounds(self, number, group):
        """Returns the first unit of a group and the one behind its last."""
        begin = number * group
        return begin, tf.minimum(begin + group, self._length)

    def _arrays(self, length, keeps):
        """Returns empty arrays of what `length` units keep."""
        return [
            tf.TensorArray(kept.dtype, length, element_shape=kept.shape)
            for kept in self._graph.kept(keeps)
        ]


def alone(
    graph: UnitGraph, x: tf.Tensor, values: Sequence[tf.Tensor], weights: int, remat: Remat
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Returns what a unit outside of loops returns, with its gradient.

    Args:
        graph: of the unit.
        x: its input.
        values: as for `UnitGraph.forward`.
        weights: number of trainable variables, the first of the values.
        remat: with any but "none", the unit keeps its input alone.
    """
    keeps = CONVOLUTIONS if remat.kind == "none" else INPUT

    @tf.custom_gradient
    def run(x, *values):
        y, changed, kept = graph.forward(x, values, keeps)

        def gradient(upstream, *_):
            given = (upstream, *kept, *values)

            # Within a loop of one step, TensorFlow does not find that it has these values.
            def body(number, *_):
                upstream, *others = map(tf.identity, given)
                own, values = others[: len(kept)], others[len(kept) :]
                by_x, by_weights = graph.backward(own, upstream, values, keeps)
                return number + 1, by_x, *by_weights

            begin = (tf.constant(0), *map(tf.zeros_like, (x, *values[:weights])))
            _, *gradients = tf.while_loop(
                lambda number, *_: number < 1, body, begin, maximum_iterations=1
            )
            return (*gradients, *[None] * (len(values) - weights))

        return (y, *changed), gradient

    y, *changed = run(x, *values)
    return y, changed


class _Values:
    """Stacks of values, read for one unit at a time."""

    def __init__(self, stacks):
        self._arrays = [
            tf.TensorArray(
                s.dtype, s.shape[0], element_shape=s.shape[1:], clear_after_read=False
            ).unstack(s)
            for s in stacks
        ]

    def read(self, number):
        return [array.read(number) for array in self._arrays]


def _array(stack):
    """Returns an empty array for as many values as there are in a stack."""
    return tf.TensorArray(stack.dtype, stack.shape[0], element_shape=stack.shape[1:])
