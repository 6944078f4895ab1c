"""The signals inside of a residual unit: y = h(x) + F(x), next x = f(y)."""

from typing import NamedTuple

import tensorflow as tf


class Factor(NamedTuple):
    """The factor by which a shortcut multiplies the signal: lambda of equation (8).

    Args:
        value: a scalar that stands for the whole unit: the mean of values, or their root
            mean square if they are singular values.
        values: the factors of all pixels and channels of a gate, or the singular values of a
            convolution; of any shape.
    """

    value: tf.Tensor | float
    values: tf.Tensor | list[float]


class Taps(NamedTuple):
    """The signals of one call of a residual unit, (batch, height, width, channels) each.

    A layer whose `call` takes `return_taps` and then returns these is a residual unit to
    `keras_preact.analysis`, whatever its name and class.

    Args:
        x: x_l after the two paths have split: the input of the shortcut.
        shortcut: h(x_l), differentiable with respect to the layer's input.
        residual: F(x_l) as it enters the sum, likewise.
        sum: y_l = h(x_l) + F(x_l), made of these two tensors.
        output: x_{l+1} = f(y_l), made of sum; the same tensor where f is the identity.
        factor: the factor of h; None where h is not one of the paper's. The ratio of the
            norms of h(x_l) and x_l then stands for it.
        shortcut_output: f(h(x_l)), the output of the unit without F. Needed in inference
            where f is not the identity.

    Source: "Identity Mappings in Deep Residual Networks", equations (1), (2) and (8).
    """

    x: tf.Tensor
    shortcut: tf.Tensor
    residual: tf.Tensor
    sum: tf.Tensor
    output: tf.Tensor
    factor: Factor | None = None
    shortcut_output: tf.Tensor | None = None
