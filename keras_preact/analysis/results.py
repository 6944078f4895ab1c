"""What has been measured of a network, as NumPy arrays indexed by unit, first to last."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of one signal in each unit, over all elements (batch, height, width, channels).

    Args:
        mean: float64 (units,).
        variance: float64 (units,).
        zero_fraction: share of elements that are exactly 0, float64 (units,).
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
        truncated_fraction: share of the elements of y_l that are not 0 and of which f makes 0.
        sum_error: Euclidean norm of x_L - x_l - sum F(x_i), over that of x_L, where the sum
            is from unit l to the last of its stage and x_L what leaves that: equation (4).
            0 to rounding where h and f are the identity. In a unit that changes dimensions,
            what its shortcut makes of x_l stands for x_l.
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
        output_gradient_norm: of dE/dx_L, x_L being what leaves the last unit.
        gradient_norm: of dE/dx_l, x_l being the input of the unit.
        shortcut_norm: of the part of dE/dx_l that came from dE/dx_L through shortcuts
            alone: the first term of equation (5).
        residual_norm: of the part that came through one residual function at least: the
            second term.
        cosine: of the angle between these two; NaN where one is 0.
        split_error: norm of the difference between dE/dx_l and the sum of the two terms,
            over the norm of dE/dx_l.
        shortcut_factor: lambda_l, the factor of each unit's shortcut; see `Shortcut.factor`.
        shortcut_product: of the factors from unit l to the last one, equation (8).
            Projections are left out, as in the paper.
        factor_values: of each unit, up to 4,096 of the values that the factor stands for: of
            gates those of pixels and channels, of convolutions the singular values.
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
    """Evaluations of a network, each with one change.

    Args:
        units: names of all units, first to last.
        images: how many were evaluated.
        accuracy: of the unchanged network, 0 to 1.
        deleted_accuracy: float64 (units,): without the residual function of one unit, the
            shortcut alone being left; of a plain unit, without the unit. NaN where a plain
            unit changes dimensions and so cannot be taken out.
        swapped: int (swaps, 2): the indices of two units of one shape that changed places.
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
        paths: how many paths have each length, the binomial coefficients, float64.
        gradient_norm: Euclidean norm of the sum of what came along all paths of a length.
        share: of dE/dx_1: the projection of that sum onto dE/dx_1 over the norm of
            dE/dx_1; the shares add up to 1, and one is negative where paths of a length
            work against the others.
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
