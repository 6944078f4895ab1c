"""The gradient by the length of the paths it came along."""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_preact.analysis import chain
from keras_preact.analysis.backward_pass import (
    Loss,
    cross_entropy,
    of_loss,
    power_of_two,
    pull_back,
    tolerance,
)
from keras_preact.analysis.forward_pass import exact
from keras_preact.analysis.results import PathLengths
from keras_preact.support import tf32

# Gradients propagated in one call of a unit.
_TOGETHER = 4


@tf32.off()
def path_lengths(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    loss: Loss | None = None,
    training: bool = True,
) -> PathLengths:
    """Splits the gradient dE/dx_1 by the number of residual functions that it came through.

    All 2^L paths through L units count; none are sampled. With J_h, J_F and J_f the
    Jacobians of a unit's h, F and f, the gradient at x_l along all paths of length k is

        c_{l,k} = J_h^T J_f^T c_{l+1,k} + J_F^T J_f^T c_{l+1,k-1}

    so about L^2 / 2 gradients are propagated through h and as many through F. Memory holds up
    to 2 (L + 1) tensors of the size of x_l: the input of every unit, and c_l of every length.

    Args:
        model: made of residual units called one after the other, as `backward` takes it.
            It is left unchanged.
        images: (batch, height, width, channels), as the model takes them.
        labels: int (batch,), or what loss takes.
        loss: as in `backward`.
        training: whether BN normalizes by the batch, and dropout drops, as in training.

    Raises:
        ValueError: if the model is not a chain of units, or labels do not fit it.
        ArithmeticError: if the lengths do not add up to the gradient of the network as a
            whole, because the taps of a custom unit are not the signals it computes with.

    Source: "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"
    (Veit et al., 2016), sections 3 and 4.2, which sample paths.
    """
    network = chain.take_apart(model)
    inputs = network.inputs(images, training)
    loss = loss or cross_entropy(network)
    _, start = of_loss(network, inputs.pop(), labels, loss, training)
    gradient = _Scaled(start.gradient, start.scale)
    by_length = {0: gradient}
    for layers in network.from_last():
        x = inputs.pop()
        pulled = network.compute(pull_back, layers, x, gradient.tensor, training)
        gradient = _rescaled(pulled, gradient.scale)
        by_length = _through_unit(network, layers, x, by_length, training)
    return _collect(network, gradient, by_length)


class _Scaled(NamedTuple):
    """A gradient as tensor times scale: no precision holds those of all lengths unscaled."""

    tensor: tf.Tensor
    scale: float


def _rescaled(tensor, scale):
    power = power_of_two(tensor)
    return _Scaled(tensor / power, scale * power)


def _through_unit(network, layers, x, by_length, training):
    """Propagates the gradient of each length back through a unit; those of 0 are left out."""
    sums = {}
    lengths = list(by_length)
    for first in range(0, len(lengths), _TOGETHER):
        chosen = lengths[first : first + _TOGETHER]
        tensors = [by_length[length].tensor for length in chosen]
        # The same number in every call, so that the computation is traced once.
        tensors += tensors[-1:] * (_TOGETHER - len(tensors))
        pulled = network.compute(_split_each, layers, x, tensors, training)
        for length, *terms in zip(chosen, *pulled, strict=False):
            for longer, term in enumerate(terms):
                total = sums.get(length + longer)
                sums[length + longer] = _add(total, _Scaled(term, by_length[length].scale))
    return {length: total for length, total in sums.items() if total is not None}


def _split_each(layers, x, gradients, training):
    """Propagates each gradient back through the shortcut, and through the residual function."""
    unit, *gap = layers
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        taps = unit(x, training=training, return_taps=True)
        end = chain.call(gap, taps.output, training)

    def pull(target, source, gradient):
        gradient = tf.cast(gradient, target.dtype)
        return tape.gradient(target, source, gradient, unconnected_gradients="zero")

    at_sum = [pull(end, taps.sum, gradient) for gradient in gradients]
    return [[exact(pull(path, x, g)) for g in at_sum] for path in (taps.shortcut, taps.residual)]


def _add(first, second):
    """Adds two gradients; None stands for 0."""
    if not tf.reduce_any(second.tensor != 0):
        return first
    if first is None:
        return _rescaled(*second)
    largest = max(first.scale, second.scale)
    terms = [tensor * (scale / largest) for tensor, scale in (first, second)]
    return _rescaled(tf.add_n(terms), largest)


def _collect(network, gradient, by_length):
    units = len(network.units)
    lengths = range(units + 1)
    norms, products = np.zeros((2, len(lengths)))
    total = sum(map(_float64, by_length.values()))
    for length, scaled in by_length.items():
        term = _float64(scaled)
        norms[length] = np.linalg.norm(term)
        products[length] = np.vdot(term, total)
    _check(network, gradient, total, norms)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = products / np.vdot(total, total)
    paths = np.array([math.comb(units, length) for length in lengths], "float64")
    return PathLengths(units=network.names, paths=paths, gradient_norm=norms, share=share)


def _float64(scaled):
    return exact(scaled.tensor).numpy().astype("float64") * scaled.scale


def _check(network, gradient, total, sizes):
    """Raises ArithmeticError unless the total is the gradient, to the rounding of its terms."""
    error = np.linalg.norm(total - _float64(gradient))
    most, precision = tolerance(network)
    if error > most * np.sum(sizes):
        raise ArithmeticError(
            "The gradients of all lengths must add up to that of the network, to rounding: the "
            "taps of a unit must be what it computes. Received: a sum that differs by "
            f"{error / np.sum(sizes):.1e} of its terms in {precision}"
        )
