"""The signal on its way forward: equations (1), (2) and (4), measured."""

import keras
import numpy as np
import tensorflow as tf

from keras_preact.analysis import chain
from keras_preact.analysis.results import Forward, Moments
from keras_preact.support import tf32

_SIGNALS = ("input", "shortcut", "residual", "sum", "output")
_ERRORS = ("sum_error", "sum_error_of_f", "sum_error_of_h")


@tf32.off()
def forward(model: keras.Model, images: np.ndarray, *, training: bool = True) -> Forward:
    """Measures the signals in every residual unit of a network and leaves it unchanged.

    Args:
        model: made of residual units called one after the other: of this package's
            builders, or of any layers whose `call` takes `return_taps`.
        images: (batch, height, width, channels), as the model takes them.
        training: whether BN normalizes by the batch, and dropout drops, as in training.
            False: as in inference, with the moving statistics.

    Raises:
        ValueError: if the model is not such a chain of units.

    Source: "Identity Mappings in Deep Residual Networks", equations (1), (2) and (4).
    """
    return of_chain(chain.take_apart(model), images, training)


@tf32.off()
def of_chain(network: chain.Chain, images: np.ndarray, training: bool = True) -> Forward:
    """`forward` of a network taken apart before, to measure it repeatedly."""
    x, stages = tf.convert_to_tensor(images), network.stages
    rows, inputs = [], []
    for number, (gap, unit) in enumerate(zip(network.gaps, network.units, strict=True)):
        if number and stages[number] > stages[number - 1]:
            rows += _stage(network, inputs, x, training, len(rows))
            inputs = []
        inputs.append(network.compute(chain.call, gap, x, training))
        x = network.compute(chain.call, (unit,), inputs[-1], training)
    rows += _stage(network, inputs, x, training, len(rows))
    return _collect(network.names, stages, rows)


def _stage(network, inputs, x_last, training, first):
    """Measures the units of a stage, from unit `first` on: a dict for each.

    Their signals are computed a second time, which takes less memory than keeping them.
    """
    x_last = exact(x_last)
    scale = max(float(tf.norm(x_last)), np.finfo(np.float32).tiny)
    sums = [tf.zeros_like(x_last)] * 3
    units, rows = network.units[first : first + len(inputs)], []
    for unit, x in zip(units[::-1], inputs[::-1], strict=True):
        sums, moments, truncated, errors = network.compute(
            _measure, (unit,), x, x_last, sums, training
        )
        rows.append(
            {
                **dict(zip(_SIGNALS, moments.numpy(), strict=True)),
                "truncated_fraction": float(truncated),
                **dict(zip(_ERRORS, errors.numpy() / scale, strict=True)),
            }
        )
    return rows[::-1]


def _measure(layers, x, x_last, sums, training):
    """Measures a unit and adds its F, f(y) - y and h(x) - x to the sums over units."""
    taps = layers[0](x, training=training, return_taps=True)
    signals = [exact(signal) for signal in (x, *taps[1:5])]
    _, h, residual, y, output = signals
    start = exact(taps.x) if taps.x.shape == taps.shortcut.shape else h
    sums = [
        total + term for total, term in zip(sums, (residual, output - y, h - start), strict=True)
    ]
    errors = [tf.norm(deviation) for deviation in (x_last - start - sums[0], *sums[1:])]
    truncated = _share((output == 0) & (y != 0))
    return sums, tf.stack([_moments(signal) for signal in signals]), truncated, tf.stack(errors)


def _moments(signal):
    mean, variance = tf.nn.moments(signal, axes=list(range(signal.shape.rank)))
    return tf.stack([tf.cast(value, tf.float64) for value in (mean, variance, _share(signal == 0))])


def _share(flags):
    # A mean in float32 could not count beyond 2**24.
    return tf.math.count_nonzero(flags) / tf.size(flags, tf.int64)


def exact(signal: tf.Tensor) -> tf.Tensor:
    """Casts a signal to float32, or leaves it in float64, to measure it."""
    return signal if signal.dtype == tf.float64 else tf.cast(signal, tf.float32)


def _collect(names, stages, rows):
    def column(name):
        return np.array([row[name] for row in rows], np.float64)

    of = {name: Moments(*column(name).T) for name in _SIGNALS}
    x = of.pop("input")
    return Forward(
        units=names,
        stages=stages,
        mean=x.mean,
        variance=x.variance,
        zero_fraction=x.zero_fraction,
        **of,
        truncated_fraction=column("truncated_fraction"),
        **{name: column(name) for name in _ERRORS},
    )
