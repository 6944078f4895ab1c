"""BN statistics computed anew, against NumPy."""

import numpy as np
import pytest
from small_steps import make

from keras_preact.data import datasets
from keras_preact.layers import Conv2D
from keras_preact.training.statistics import Recomputation


def stem_statistics(small, batches):
    """Mean and variance that reach the first BN of an original net, by NumPy, per batch."""
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
