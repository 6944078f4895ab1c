"""Mixes the images of a batch in pairs: mixup and CutMix."""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

# Each is refused once in 20 times at most, all of them never.
_CANDIDATES = 16
# Folded into a step's seed; 1 to 3 are those of `mixing_weight`.
_CUTMIX_WEIGHT, _CUTMIX_CENTRE, _CHOICE = 4, 5, 6


class Mixture(NamedTuple):
    """The shares of each image and of its partner, the image at its mirror place.

    Args:
        pixels: share of an image in the pixels of the mixture: a scalar, or float32 (height,
            width, 1) of zeros and ones.
        labels: its share in the label, a float32 scalar.
    """

    pixels: tf.Tensor
    labels: tf.Tensor


def draw(
    mixup_alpha: float, cutmix_alpha: float, seed: tf.Tensor, image_shape: tuple[int, int, int]
) -> Mixture | None:
    """Draws how a batch is mixed; returns None where it is not.

    With both alphas above 0, one of the two ways is drawn with probability 1/2.

    Args:
        mixup_alpha: parameter of mixup's Beta distribution; 0 for no mixup.
        cutmix_alpha: parameter of CutMix's Beta distribution; 0 for no CutMix.
        seed: int32 (2,), of the batch.
        image_shape: (height, width, channels).
    """
    if not (mixup_alpha or cutmix_alpha):
        return None
    mixup = cutmix = None
    if mixup_alpha:
        weight = mixing_weight(mixup_alpha, seed)
        mixup = Mixture(weight, weight)
    if cutmix_alpha:
        weight = mixing_weight(cutmix_alpha, _fold_in(seed, _CUTMIX_WEIGHT))
        cutmix = box_mixture(weight, _fold_in(seed, _CUTMIX_CENTRE), image_shape)
    if not (mixup and cutmix):
        return mixup or cutmix
    cuts = tf.random.stateless_uniform([], _fold_in(seed, _CHOICE)) < 0.5
    return Mixture(*(tf.where(cuts, *pair) for pair in zip(cutmix, mixup, strict=True)))


def mixing_weight(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws mixup's weight for a batch from Beta(alpha, alpha): a float32 scalar.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018).

    Args:
        alpha: above 0.
        seed: int32 (2,).
    """
    # Gamma(alpha) = Gamma(alpha + 1) * U ** (1 / alpha); in logarithms, as small alphas would
    # underflow float32.
    uniforms = 1 - tf.random.stateless_uniform([2], _fold_in(seed, 1))
    logarithms = _log_gammas(alpha + 1, seed) + tf.math.log(uniforms) / alpha
    return tf.sigmoid(logarithms[0] - logarithms[1])


def box_mixture(weight: tf.Tensor, seed: tf.Tensor, image_shape: tuple[int, int, int]) -> Mixture:
    """Draws CutMix's box: within it a mixture shows the partner, around it the image.

    The box has the shape of the image and, before it is clipped at the borders, the share
    1 - weight of its area. Its centre is uniform. The share in the label is that of the pixels
    left after clipping.

    Source: Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with
    Localizable Features" (2019), equation 2 and the paper's code. As in timm, boxes of odd sides
    keep their last row and column.

    Args:
        weight: from `mixing_weight`, a float32 scalar.
        seed: int32 (2,), of the centre.
        image_shape: (height, width, channels).
    """
    ratio = tf.sqrt(1 - weight)
    uniforms = tf.random.stateless_uniform([2], seed)
    sides, counts = [], []
    for place, length in enumerate(image_shape[:2]):
        cut = tf.cast(length * ratio, tf.int32)
        # A uniform number just below 1 may be rounded up.
        centre = tf.minimum(tf.cast(length * uniforms[place], tf.int32), length - 1)
        begin = tf.maximum(centre - cut // 2, 0)
        end = tf.minimum(centre + (cut + 1) // 2, length)
        positions = tf.range(length)
        sides.append((positions >= begin) & (positions < end))
        counts.append(tf.cast(end - begin, tf.float32))
    in_box = sides[0][:, None, None] & sides[1][None, :, None]
    area = image_shape[0] * image_shape[1]
    return Mixture(1 - tf.cast(in_box, tf.float32), 1 - counts[0] * counts[1] / area)


def mix(values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Mixes each element of a batch with its mirror: weight * x[i] + (1 - weight) * x[-1 - i]."""
    return weight * values + (1 - weight) * tf.reverse(values, [0])


def _log_gammas(shape, seed):
    """Draws the logarithms of two numbers from Gamma(shape), shape at least 1.

    XLA cannot compile `tf.random.stateless_gamma`.

    Source: Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000).
    """
    d = shape - 1 / 3
    normals = tf.random.stateless_normal([2, _CANDIDATES], _fold_in(seed, 2))
    uniforms = 1 - tf.random.stateless_uniform([2, _CANDIDATES], _fold_in(seed, 3))
    cubes = (1 + normals / math.sqrt(9 * d)) ** 3
    logarithms = tf.math.log(tf.maximum(cubes, np.finfo(np.float32).tiny))
    is_low = tf.math.log(uniforms) < normals**2 / 2 + d * (1 - cubes + logarithms)
    accepted = tf.argmax((cubes > 0) & is_low, axis=1)
    return math.log(d) + tf.gather(logarithms, accepted, axis=1, batch_dims=1)


def _fold_in(seed, number):
    return tf.random.experimental.stateless_fold_in(seed, number)
