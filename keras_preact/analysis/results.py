"""Measurements of a network as NumPy arrays indexed by unit, first to last."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
    """Moments of one signal in each unit, over all elements (batch, height, width, channels).

    Args:
        mean: float64 (units,).
        variance: float64 (units,).
        zero_fraction: of the elements that are exactly 0, 0 to 1, float64 (units,).
    """

    mean: np.ndarray
    variance: np.ndarray
    zero_fraction: np.ndarray


@dataclasses.dataclass(frozen=True)
class Forward:
    """The signals of all units, equations (1), (2) and (4). Arrays are (units,).

    Args:
        units: names, first to last.
        stages: int: the stage of each unit, from 1; a stage ends where a unit changes
            dimensions.
        mean, variance, zero_fraction: of x_l, the input of each unit.
        shortcut: of h(x_l).
        residual: of F(x_l), as it enters the sum.
        sum: of y_l.
        output: of x_{l+1} = f(y_l).
        truncated_fraction: of the elements of y_l that f zeroes, 0 to 1; zeros of y_l itself
            do not count.
        sum_error: Euclidean norm of x_L - x_l - sum F(x_i) over that of x_L, equation (4). The
            sum is from unit l to the last of its stage, whose output is x_L. 0 to rounding
            where h and f are the identity. Where dimensions change, h(x_l) stands for x_l.
        sum_error_of_f: the same of sum (f(y_i) - y_i), the part that f causes.
        sum_error_of_h: the same of sum (h(x_i) - x_i), the part that h causes.
    """

    units: tuple[str, ...]
    stages: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    zero_fraction: np.ndarray
    shortcut: Moments
    residual: Moments
    sum: Moments
    output: Moments
    truncated_fraction: np.ndarray
    sum_error: np.ndarray
    sum_error_of_f: np.ndarray
    sum_error_of_h: np.ndarray


@dataclasses.dataclass(frozen=True)
class Backward:
    """The gradient of the loss at all units, equations (5) and (8). Arrays are (units,).

    Norms are Euclidean over the whole batch. The loss E is the mean over the images.

    Args:
        units: names, first to last.
        stages: int: the stage of each unit, from 1.
        loss: E, in nats.
        output_gradient_norm: of dE/dx_L at the output x_L of the last unit.
        gradient_norm: of dE/dx_l at the input x_l of the unit.
        shortcut_norm: of the part of dE/dx_l that came from dE/dx_L through shortcuts
            alone: the first term of equation (5).
        residual_norm: of the part that came through at least one residual function: the
            second term.
        cosine: of the angle between these two; NaN where one is 0.
        split_error: norm of the difference between dE/dx_l and the sum of the two terms,
            over the norm of dE/dx_l.
        shortcut_factor: lambda_l, the factor of each unit's shortcut; see `Shortcut.factor`.
        shortcut_product: of the factors from unit l to the last one, equation (8).
            Projections are left out, as in the paper.
        factor_values: up to 4,096 of the values that each unit's factor stands for: those of
            a gate's pixels and channels, or the singular values of a convolution.
    """

    units: tuple[str, ...]
    stages: np.ndarray
    loss: float
    output_gradient_norm: float
    gradient_norm: np.ndarray
    shortcut_norm: np.ndarray
    residual_norm: np.ndarray
    cosine: np.ndarray
    split_error: np.ndarray
    shortcut_factor: np.ndarray
    shortcut_product: np.ndarray
    factor_values: tuple[np.ndarray, ...]


@dataclasses.dataclass(frozen=True)
class Lesions:
    """Accuracies of a network, each with one change.

    Args:
        units: names of all units, first to last.
        images: number of images evaluated.
        accuracy: of the unchanged network, 0 to 1.
        deleted_accuracy: float64 (units,): without the residual function of each unit, or
            without the whole of a plain unit. NaN where a plain unit changes dimensions and
            cannot be left out.
        swapped: int (swaps, 2): the indices of two swapped units of one shape.
        swapped_accuracy: float64 (swaps,).
    """

    units: tuple[str, ...]
    images: int
    accuracy: float
    deleted_accuracy: np.ndarray
    swapped: np.ndarray
    swapped_accuracy: np.ndarray


@dataclasses.dataclass(frozen=True)
class PathLengths:
    """The gradient dE/dx_1 at the first unit by the length of the paths it came along.

    A path goes through the shortcut or the residual function of each unit, so L units make
    2^L paths; its length is the number of residual functions. Arrays are (units + 1,),
    indexed by length.

    Args:
        units: names, first to last.
        paths: number of paths of each length, the binomial coefficients, float64.
        gradient_norm: Euclidean norm of the gradient along all paths of a length.
        share: projection of that gradient onto dE/dx_1, over the norm of dE/dx_1. The shares
            add up to 1; one is negative where the paths of a length work against the others.
    """

    units: tuple[str, ...]
    paths: np.ndarray
    gradient_norm: np.ndarray
    share: np.ndarray


@dataclasses.dataclass(frozen=True)
class Initialisation:
    """Gradients of one untrained network, over several draws of the weights.

    Args:
        label: of the network, for a legend.
        depth: weighted layers.
        units: names, first to last.
        gradient_norm: float64 (draws, units): of dE/dx_l at the input of each unit, over
            that of dE/dx_L at the output of the last one.
        shortcut_norm: float64 (draws, units): the same of the part that came through
            shortcuts alone.
        shortcut_product: float64 (units,): equation (8), the mean over draws.
    """

    label: str
    depth: int
    units: tuple[str, ...]
    gradient_norm: np.ndarray
    shortcut_norm: np.ndarray
    shortcut_product: np.ndarray
