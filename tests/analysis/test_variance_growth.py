"""The variance of the signal in untrained networks against its closed form.

He's initialization gives a convolution of `taps` taps within the image, of k * k, an output of
second moment E[z^2] = (taps / k^2) (in / out) 2 E[relu^2] where its input is a ReLU's; and half
of the second moment of a symmetric signal passes ReLU. In images of n x n pixels, n = 1 or 2, all
pixels are alike: (3n - 2)^2 / (3n)^2 of the taps of a 3x3 convolution are within the image.
"""

import keras
import numpy as np
import pytest
from tiny_chains import sample

from keras_preact import analysis
from keras_preact.layers import ActivationOrder, ResidualUnit

ONLY_RELU = ActivationOrder("relu conv", "relu conv", "relu conv")


def second_moments(block, size, order="full_preactivation", channels=128, units=12, seeds=4):
    """Second moments of x_l and of F(x_l) in untrained networks, (seeds, units) each."""
    expansion = 4 if block == "bottleneck" else 1
    images = sample((size, size, channels), batch=64)[0]
    rows = []
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        x = inputs = keras.Input(images.shape[1:])
        for _ in range(units):
            x = ResidualUnit(channels // expansion, block=block, order=order)(x)
        measured = analysis.forward(keras.Model(inputs, x), images)
        signals = (measured, measured.residual)
        rows.append([signal.variance + signal.mean**2 for signal in signals])
    return np.array(rows).transpose(1, 0, 2)


def check_mean(draws, expected, most_error=0.04):
    """Asserts a mean within four standard errors, which are small enough to exclude neighbours."""
    error = draws.std(ddof=1) / np.sqrt(draws.size)
    assert error < most_error * expected
    np.testing.assert_allclose(draws.mean(), expected, atol=4 * error)


@pytest.mark.parametrize(
    ("block", "size", "share"),
    [
        ("basic", 1, 1 / 9),
        ("basic", 2, 4 / 9),
        # The last convolution is 1x1 and has a quarter as many inputs as outputs.
        ("bottleneck", 2, 1 / 4),
        ("bottleneck", 6, 1 / 4),
    ],
)
def test_each_unit_adds_the_same_variance_to_the_signal(block, size, share):
    signal, residual = second_moments(block, size)
    check_mean(residual, share)
    # Linear growth: residuals of independent weights are orthogonal in the mean, with more noise.
    check_mean(np.diff(signal), share, most_error=0.15)


@pytest.mark.parametrize(("block", "factor"), [("basic", 1 + (4 / 9) ** 2), ("bottleneck", 13 / 9)])
def test_without_batch_norm_each_unit_multiplies_the_variance(block, factor):
    # Each 3x3 convolution passes 4/9 of its input's second moment on, as E[relu^2] is half of
    # it and He's initialization doubles it; bottleneck: 4 * 4/9 * 1/4.
    signal, residual = second_moments(block, 2, ONLY_RELU)
    check_mean(residual / signal, factor - 1, most_error=0.05)
    check_mean(signal[:, 1:] / signal[:, :-1], factor)
