"""Sampling error of a comparison on a limited number of images.

All tests are one-sided, at 5 %: a file whose true loss is the allowed one fails at most 5 times in
100, or 5.3 times where more than 5 points are allowed.
"""

import functools
import math

import numpy as np

SIGNIFICANCE = 0.05
# Halvings of an interval of length 2: limits are exact to 1e-6.
_HALVINGS = 21


def loses_more(images: int, lost: int, gained: int, allowed: float) -> bool:
    """Whether the true loss of accuracy is larger than allowed, with 95 % confidence.

    The test is paired: an image that both models classify rightly, or both wrongly, says nothing
    about the loss. Its p-value is the probability that `lost - gained` is at least as large as
    observed, if the true loss is the allowed one; the true share of gained answers is then the
    most likely one (Tango 1998, Statistics in Medicine 17:891). The probability itself is exact,
    as in Lloyd's estimated p-value (2008, Australian & New Zealand Journal of Statistics 50:329),
    as a normal approximation rejects too often where few answers change.

    Fewer than four lost answers are never too many, nor is any number of fewer than five images.

    Args:
        images: number of images compared.
        lost: answers right in the reference and wrong in the file.
        gained: answers wrong in the reference and right in the file.
        allowed: loss of accuracy, as a share of all images.
    """
    return _loss_p_value(images, lost, gained, min(allowed, 1)) <= SIGNIFICANCE


@functools.cache
def loss_interval(images: int, lost: int, gained: int) -> tuple[float, float]:
    """The 90 % confidence interval of the loss of accuracy, as shares of all images.

    The allowed losses below it are those that `loses_more` finds exceeded.

    Args:
        images, lost, gained: as in `loses_more`.
    """
    return _lowest_loss(images, lost, gained), -_lowest_loss(images, gained, lost)


def happens_more(images: int, count: int, allowed: float) -> bool:
    """Whether the true share of images is larger than allowed, with 95 % confidence.

    The test is the exact binomial one (Clopper & Pearson 1934, Biometrika 26:404).

    Args:
        images: number of images.
        count: those of the images that are counted.
        allowed: share of all images.
    """
    return _at_least(images, count, allowed, 0) <= SIGNIFICANCE


def _lowest_loss(images, lost, gained):
    low, high = -1.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _loss_p_value(images, lost, gained, middle) <= SIGNIFICANCE:
            low = middle
        else:
            high = middle
    return low


def _loss_p_value(images, lost, gained, loss):
    share_gained = _likeliest_gained(images, lost, gained, loss)
    return _at_least(images, lost - gained, share_gained + loss, share_gained)


def _likeliest_gained(images, lost, gained, loss):
    """The most likely share of gained answers, given the loss: Tango's equation 7."""
    b = (2 * images - lost + gained) * loss - lost - gained
    root = math.sqrt(b**2 + 8 * images * gained * loss * (1 - loss))
    share = (root - b) / (4 * images)
    return min(max(share, 0, -loss), (1 - loss) / 2)


def _at_least(images, least, lost, gained):
    """Probability that lost minus gained answers number `least` or more.

    The inverse Fourier transform of the characteristic function gives the distribution.

    Args:
        images: number of images, independent of each other.
        least: a difference.
        lost, gained: probabilities of either for an image.
    """
    size = 2 ** (2 * images + 1).bit_length()
    angle = 2 * np.pi * np.arange(size // 2 + 1) / size
    of_one = 1 - (lost + gained) * (1 - np.cos(angle)) - 1j * (lost - gained) * np.sin(angle)
    distribution = np.fft.irfft(of_one**images, size)
    return distribution.take(np.arange(least, images + 1), mode="wrap").sum()
