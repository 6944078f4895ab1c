"""BN statistics, merged over replicas and recomputed, against NumPy."""

import numpy as np
import pytest
from small_steps import copies, make

from keras_preact.data import datasets
from keras_preact.layers import Conv2D
from keras_preact.training.steps.bn_statistics import Recomputation, ReplicaStatistics


def scrambled(variables, seed):
    """Gives each replica's copy other values; returns a row of them for each replica."""
    random = np.random.default_rng(seed)
    for variable in variables:
        for copy in variable.values:
            copy.assign(random.normal(size=copy.shape))
    return rows_of(variables)


def rows_of(variables):
    each = zip(*map(copies, variables), strict=True)
    return np.stack([np.concatenate([np.ravel(value) for value in row]) for row in each])


def test_the_statistics_of_each_replica_are_gathered_and_put_back():
    small = make(2, ema_decay=0.5)
    statistics = ReplicaStatistics(small.state, small.strategy)
    chosen = small.state.statistics()
    averaged = [path for path in small.state.averages if "moving_" in path]
    own = [v.path for v in small.state.model.variables if "moving_" in v.path]
    assert {*chosen} == {("model", p) for p in own} | {("averages", p) for p in averaged}
    expected = scrambled(chosen.values(), seed=1)
    assert not np.array_equal(*expected)
    rows = statistics.gather()
    np.testing.assert_array_equal(rows, expected, strict=True)
    others = scrambled(chosen.values(), seed=2)
    # Rows of another number of replicas are ignored.
    for ignored in (np.zeros((0, 0), np.float32), rows[:1], np.concatenate([rows, rows])):
        statistics.scatter(ignored)
        np.testing.assert_array_equal(rows_of(chosen.values()), others)
    statistics.scatter(rows)
    np.testing.assert_array_equal(rows_of(chosen.values()), expected)
    statistics.merge()
    first, second = rows_of(chosen.values())
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected.mean(axis=0), rtol=1e-6, atol=1e-7)


def test_one_replica_has_nothing_to_gather_or_merge():
    small = make(1)
    before = {v.path: v.numpy() for v in small.state.model.variables}
    statistics = ReplicaStatistics(small.state, small.strategy)
    statistics.merge()
    assert statistics.gather().shape == (0, 0)
    statistics.scatter(np.ones((2, 448), np.float32))
    for variable in small.state.model.variables:
        np.testing.assert_array_equal(variable.numpy(), before[variable.path])


def stem_statistics(small, batches):
    """Returns mean and variance at the first BN of an original network for each batch, by NumPy."""
    data = datasets.load("digits")
    conv = small.state.model.get_layer("stem_conv")
    again = Conv2D(conv.filters, 3)
    again.build((None, 8, 8, 1))
    trainable, _ = small.state.evaluated()
    again.set_weights([trainable[0].numpy()])
    for images, _ in batches:
        normalized = (images.numpy().astype(np.float64) - data.info.mean) / data.info.std
        output = again(normalized.astype(np.float32)).numpy().astype(np.float64)
        yield output.mean(axis=(0, 1, 2)), output.var(axis=(0, 1, 2))


@pytest.mark.parametrize("ema_decay", [None, 0.5])
def test_recomputed_statistics_are_the_means_over_batches(ema_decay):
    small = make(1, unit="original", ema_decay=ema_decay)
    small.take(2)
    data = datasets.load("digits")
    Recomputation(small.state, data.info, small.strategy)(iter(data.train(32)), 3)
    batches = [batch for _, batch in zip(range(3), data.train(32), strict=False)]
    means, variances = map(np.stack, zip(*stem_statistics(small, batches), strict=True))
    _, statistics = small.state.evaluated()
    paths = [variable.path for variable in small.state.model.non_trainable_variables]
    found = {path: value.numpy() for path, value in zip(paths, statistics, strict=True)}
    mean, variance = found["stem_bn/moving_mean"], found["stem_bn/moving_variance"]
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance, variances.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_recomputation_changes_no_weight_and_no_random_state():
    small = make(1, stochastic_depth_rate=0.3)
    data = datasets.load("digits")
    before = {v.path: v.numpy() for v in small.state.model.variables}
    Recomputation(small.state, data.info, small.strategy)(iter(data.train(32)), 2)
    changed = {
        v.path for v in small.state.model.variables if not np.array_equal(v.numpy(), before[v.path])
    }
    assert changed == {path for path in before if "moving_" in path}
