"""The gradient on its way back: equations (5) and (8), measured."""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_preact.analysis import chain
from keras_preact.analysis.forward_pass import exact
from keras_preact.analysis.results import Backward
from keras_preact.models.architectures import Architecture
from keras_preact.support import tf32

# BN maps one value to 0, and two to 1 and -1, whatever they are.
_LEAST_VALUES = 3

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
MOST_FACTOR_VALUES = 4096

# A power of 2, so that half precision can hold the gradient of a mean over images and pixels.
_LOSS_SCALE = 2.0**12

# Largest rounding error of the sum of the two terms, relative to the gradient: several times
# those measured at depths 20, 56 and 1001.
_TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.3, "float16": 0.05}


@tf32.off()
def backward(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    loss: Loss | None = None,
    training: bool = True,
) -> Backward:
    """Measures the gradient at every residual unit of a network and leaves it unchanged.

    The gradient dE/dx_l is that of the network as a whole. Its two terms are propagated
    separately, and their sum is compared with it at each unit.

    Args:
        model: as in `forward`.
        images: (batch, height, width, channels), as the model takes them.
        labels: int (batch,), or what loss takes.
        loss: loss(labels, outputs of the model), a scalar; by default the mean
            cross-entropy of its logits, or probabilities.
        training: as in `forward`.

    Raises:
        ValueError: if the model is not a chain of units, or labels do not fit it.
        ArithmeticError: if the two terms do not add up to the gradient, because the taps of
            a custom unit are not the signals it computes with.

    Source: "Identity Mappings in Deep Residual Networks", equations (5) and (8).
    """
    return of_chain(chain.take_apart(model), images, labels, loss, training)


@tf32.off()
def of_chain(
    network: chain.Chain,
    images: np.ndarray,
    labels: np.ndarray,
    loss: Loss | None = None,
    training: bool = True,
) -> Backward:
    """`backward` of a network taken apart before, to measure it repeatedly."""
    inputs = network.inputs(images, training)
    value, terms = of_loss(network, inputs.pop(), labels, loss or cross_entropy(network), training)
    output_gradient_norm = terms.norms()[0]
    rows = []
    for layers in network.from_last():
        x = inputs.pop()
        gradient, *of_shortcut = terms.tensors()
        gradient = network.compute(pull_back, layers, x, gradient, training)
        shortcut, residual, factor, values = network.compute(
            _split_back, layers, x, *of_shortcut, training
        )
        scales = terms.scale, terms.shortcut_scale
        terms = _Terms(gradient, shortcut, residual, *scales).rescaled()
        rows.append((*terms.norms(), float(factor), values.numpy()))
    *columns, values = zip(*rows[::-1], strict=True)
    gradient, shortcut, residual, cosine, error, factor = map(np.array, columns)
    _check(network, gradient, error)
    return Backward(
        units=network.names,
        stages=network.stages,
        loss=value,
        output_gradient_norm=output_gradient_norm,
        gradient_norm=gradient,
        shortcut_norm=shortcut,
        residual_norm=residual,
        cosine=cosine,
        split_error=error,
        shortcut_factor=factor,
        shortcut_product=np.cumprod(factor[::-1])[::-1],
        factor_values=values,
    )


@dataclasses.dataclass(frozen=True)
class _Terms:
    """The gradient dE/dx, its part that came through shortcuts alone, and the rest.

    Each tensor stands for itself times its scale: half precision could not hold the gradient
    unscaled, nor float32 the shortcut term after hundreds of small factors.
    """

    gradient: tf.Tensor
    shortcut: tf.Tensor
    residual: tf.Tensor
    scale: float
    shortcut_scale: float

    def rescaled(self) -> "_Terms":
        """The same terms, with largest elements of gradient and shortcut of about 1."""
        own, of_shortcut = power_of_two(self.gradient), power_of_two(self.shortcut)
        scale, shortcut_scale = self.scale * own, self.shortcut_scale * of_shortcut
        # A shortcut term of 0 takes the scale of the others: its own would stay behind, until
        # their ratio overflows.
        shortcut_scale = shortcut_scale if tf.reduce_any(self.shortcut != 0) else scale
        shortcut = self.shortcut / of_shortcut
        return _Terms(self.gradient / own, shortcut, self.residual / own, scale, shortcut_scale)

    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Gradient, shortcut, residual, and the ratio of the shortcut's scale to the others'."""
        ratio = tf.constant(self.shortcut_scale / self.scale, exact(self.shortcut).dtype)
        return self.gradient, self.shortcut, self.residual, ratio

    def norms(self) -> tuple[float, ...]:
        """Norms of gradient, shortcut and residual; cosine; error of their sum."""
        gradient, shortcut, residual, ratio = map(exact, self.tensors())
        of_gradient, of_shortcut, of_residual = (
            float(tf.norm(term)) for term in (gradient, shortcut, residual)
        )
        error = float(tf.norm(shortcut * ratio + residual - gradient))
        product = of_shortcut * of_residual
        return (
            of_gradient * self.scale,
            of_shortcut * self.shortcut_scale,
            of_residual * self.scale,
            float(tf.reduce_sum(shortcut * residual)) / product if product else math.nan,
            error / of_gradient if of_gradient else error,
        )


def power_of_two(tensor):
    """The largest power of 2 up to the largest element: dividing by it rounds nothing."""
    largest = float(tf.reduce_max(tf.abs(tensor)))
    return 2.0 ** math.floor(math.log2(largest)) if 0 < largest < math.inf else 1.0


def of_loss(network, x, labels, loss, training):
    """The loss, and the terms of its gradient at the last unit's output, where the first is all."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = loss(labels, network.compute(chain.call, network.tail, x, training))
    gradient = tape.gradient(value, x, output_gradients=tf.constant(_LOSS_SCALE, value.dtype))
    start = _Terms(gradient, gradient, tf.zeros_like(x), 1 / _LOSS_SCALE, 1 / _LOSS_SCALE)
    return float(value), start.rescaled()


def pull_back(layers, x, gradient, training):
    """Propagates a gradient back through layers as a whole."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        end = chain.call(layers, x, training)
    return tape.gradient(end, x, gradient)


def _split_back(layers, x, shortcut, residual, ratio, training):
    """Propagates the two terms back through a unit and the layers behind it; adds its factor."""
    unit, *gap = layers
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(x)
        taps = unit(x, training=training, return_taps=True)
        end = chain.call(gap, taps.output, training)

    def pull(target, source, gradient):
        return tape.gradient(target, source, gradient, unconnected_gradients="zero")

    shortcut, residual = pull(end, taps.sum, shortcut), pull(end, taps.sum, residual)
    both = tf.cast(exact(shortcut) * ratio + exact(residual), residual.dtype)
    through_both = pull(taps.shortcut, x, residual) + pull(taps.residual, x, both)
    return pull(taps.shortcut, x, shortcut), through_both, *_factor(taps)


def _factor(taps):
    """(the factor of a shortcut, up to MOST_FACTOR_VALUES of the values it stands for)."""
    if taps.factor is None:
        gain = tf.norm(exact(taps.shortcut)) / tf.norm(exact(taps.x))
        return gain, gain[None]
    value, values = tf.nest.map_structure(_value, tuple(taps.factor))
    values = tf.reshape(values, [-1])
    if values.shape[0] is None or values.shape[0] > MOST_FACTOR_VALUES:
        # The same ones each time; every n-th value could belong to one channel.
        options = {"maxval": tf.size(values), "dtype": tf.int32}
        chosen = tf.random.stateless_uniform([MOST_FACTOR_VALUES], (0, 0), **options)
        values = tf.gather(values, chosen)
    return tf.convert_to_tensor(value), values


def _value(factor):
    # A shortcut may hand over a variable itself, which TensorFlow cannot pack.
    return factor.value if isinstance(factor, keras.Variable) else factor


def tolerance(network: chain.Chain) -> tuple[float, str]:
    """The largest rounding error between a gradient and the sum of its parts, relative to them.

    Returns:
        The error, and the names of the precisions that cause it.
    """
    dtypes = {unit.compute_dtype for unit in network.units}
    return max(_TOLERANCES[dtype] for dtype in dtypes), ", ".join(sorted(dtypes))


def _check(network, gradient_norms, errors):
    """Raises ArithmeticError at the last unit whose terms do not add up."""
    most, precision = tolerance(network)
    # An exploded gradient has no sum to check; it is shown as it is.
    wrong = np.flatnonzero(np.isfinite(gradient_norms) & ~(errors <= most))
    if wrong.size:
        last = wrong[-1]
        raise ArithmeticError(
            "The two terms of equation (5) must add up to the gradient, to rounding: the taps of "
            f"a unit must be what it computes. Received: {network.names[last]}, where they differ "
            f"by {errors[last]:.1e} of the gradient, in {precision}"
        )


def cross_entropy(network: chain.Chain) -> Loss:
    """The mean cross-entropy in nats, as a function of labels and the network's outputs."""

    def loss(labels, outputs):
        labels = np.asarray(labels)
        classes = outputs.shape[-1]
        fits = labels.shape == outputs.shape[:1] and np.issubdtype(labels.dtype, np.integer)
        if outputs.shape.rank != 2 or not (fits and 0 <= labels.min() <= labels.max() < classes):
            span = f", from {labels.min()} to {labels.max()}" if labels.size else ""
            raise ValueError(
                f"labels must be a whole number from 0 to {classes - 1} for each of the "
                f"{outputs.shape[0]} images, and the model must return (batch, classes). Received: "
                f"labels of shape {labels.shape} and type {labels.dtype}{span}, model output of "
                f"shape {tuple(outputs.shape)}"
            )
        if not network.has_softmax:
            options = {"labels": labels, "logits": exact(outputs)}
            return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(**options))
        # Keras' function would take the logits in place of the probabilities where it finds them.
        right = tf.gather(exact(outputs), labels, batch_dims=1)
        return -tf.reduce_mean(tf.math.log(tf.maximum(right, np.finfo(np.float32).tiny)))

    return loss


def check_images(
    architecture: Architecture, image_shape: tuple[int, int, int], count: int, name: str
) -> None:
    """Refuses batches in which BN would leave no gradient to measure.

    Args:
        architecture: of the network.
        image_shape: (height, width, channels).
        count: images in the batch.
        name: of the flag that sets count.

    Raises:
        ValueError: if channels of the last stage have fewer than three values in the batch.
    """
    height, width = map(architecture.last_size, image_shape[:2])
    if count * height * width < _LEAST_VALUES:
        raise ValueError(
            f"{name} must be at least {-(-_LEAST_VALUES // (height * width))} to measure gradients "
            f"on images of {image_shape[0]}x{image_shape[1]} pixels: the last units see "
            f"{height}x{width} of each, and BN leaves no gradient of fewer than {_LEAST_VALUES} "
            f"values of a channel. Received: {name}={count}"
        )
