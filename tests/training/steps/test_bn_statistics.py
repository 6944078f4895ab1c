"""BN statistics, merged over replicas and recomputed, against NumPy."""

import numpy as np
import pytest
from small_steps import copies, make

from keras_preact.data import datasets
from keras_preact.layers import Conv2D
from keras_preact.training.steps.bn_statistics import Recomputation, ReplicaStatistics


def scrambled(small, seed):
    """Gives each replica's statistics other values; returns them, a row for each replica."""
    random = np.random.default_rng(seed)
    expected = random.normal(size=rows_of(small).shape).astype(np.float32)
    rows, lines = small.state.rows, small.state.statistics.shape[0]
    for replica, values in enumerate(expected):
        row = small.state.statistics_from_values(values)
        rows.statistics.values[replica].assign(row[:lines])
        rows.average_statistics.values[replica].assign(row[lines:])
    return expected


def rows_of(small):
    """Own statistics, then averages, of each replica: every variable by its path."""
    layout = small.state.statistics
    rows = small.state.rows
    each = zip(copies(rows.statistics), copies(rows.average_statistics), strict=True)
    return np.stack(
        [
            np.concatenate([v.ravel() for part in parts for v in layout.to_arrays(part).values()])
            for parts in each
        ]
    )


def test_the_statistics_of_each_replica_are_gathered_and_put_back():
    small = make(2, ema_decay=0.5)
    statistics = ReplicaStatistics(small.state, small.strategy)
    own = [v for v in small.state.network.variables if "moving_" in v.path]
    assert [*small.state.statistics.shapes] == [v.path for v in own]
    assert rows_of(small).shape == (2, 2 * sum(np.prod(v.shape) for v in own))
    expected = scrambled(small, seed=1)
    np.testing.assert_array_equal(rows_of(small), expected)
    rows = statistics.gather()
    np.testing.assert_array_equal(rows, expected, strict=True)
    others = scrambled(small, seed=2)
    # Rows of another number of replicas are ignored.
    for ignored in (np.zeros((0, 0), np.float32), rows[:1], np.concatenate([rows, rows])):
        statistics.scatter(ignored)
        np.testing.assert_array_equal(rows_of(small), others)
    statistics.scatter(rows)
    np.testing.assert_array_equal(rows_of(small), expected)
    statistics.merge()
    first, second = rows_of(small)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, expected.mean(axis=0), rtol=1e-6, atol=1e-7)


def test_one_replica_has_nothing_to_gather_or_merge():
    small = make(1)
    before = small.state.to_arrays(0)["model"]
    statistics = ReplicaStatistics(small.state, small.strategy)
    statistics.merge()
    assert statistics.gather().shape == (0, 0)
    statistics.scatter(np.ones((2, 448), np.float32))
    for path, value in small.state.to_arrays(0)["model"].items():
        np.testing.assert_array_equal(value, before[path])


def evaluated(small):
    """The values to evaluate, by path."""
    arrays = small.state.to_arrays(0)
    return arrays.get("averages", arrays["model"])


def stem_statistics(small, batches):
    """Returns mean and variance at the first BN of an original network for each batch, by NumPy."""
    data = datasets.load("digits")
    conv = small.state.network.get_layer("stem_conv")
    again = Conv2D(conv.filters, 3)
    again.build((None, 8, 8, 1))
    again.set_weights([evaluated(small)["stem_conv/kernel"]])
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
    found = evaluated(small)
    mean, variance = found["stem_bn/moving_mean"], found["stem_bn/moving_variance"]
    np.testing.assert_allclose(mean, means.mean(axis=0), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(variance, variances.mean(axis=0), rtol=1e-3, atol=1e-5)


def test_recomputation_changes_no_weight_and_no_random_state():
    small = make(1, stochastic_depth_rate=0.3)
    data = datasets.load("digits")
    before = small.state.to_arrays(0)["model"]
    Recomputation(small.state, data.info, small.strategy)(iter(data.train(32)), 2)
    after = small.state.to_arrays(0)["model"]
    changed = {path for path, value in after.items() if not np.array_equal(value, before[path])}
    assert changed == {path for path in before if "moving_" in path}
