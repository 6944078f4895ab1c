"""A step of ResNet-1001: as large a graph as a shallow net's, and the same with recomputation."""

import numpy as np
import pytest
from small_steps import assert_same, make, weights


def nodes(small):
    """Number of nodes in the graphs of a step and of the functions that it calls."""
    step = small.step._function
    [concrete] = step._list_all_concrete_functions()
    graph = concrete.graph.as_graph_def()
    return len(graph.node) + sum(len(function.node_def) for function in graph.library.function)


@pytest.mark.slow
def test_a_thousand_layers_take_a_step_with_and_without_recomputation():
    options = {"depth": 1001, "global_batch_size": 8}
    plain, again = make(1, **options), make(1, remat="auto", **options)
    first, second = plain.take(2), again.take(2)
    assert np.all(np.isfinite(first["loss"])) and first["gradient_norm"][0] > 0
    np.testing.assert_allclose(second["loss"], first["loss"], rtol=1e-6)
    assert_same(weights(plain), weights(again), rtol=1e-5, atol=1e-7)
    shallow = make(1, **{**options, "depth": 164})
    shallow.take(1)
    # Not six times as many.
    assert nodes(plain) < 1.05 * nodes(shallow)
