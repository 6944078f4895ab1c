"""What studies of a network found out, as NumPy arrays."""

import dataclasses

import numpy as np


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


@dataclasses.dataclass(frozen=True)
class RunCurves:
    """The learning curves of a run. Arrays are (evaluations,).

    Args:
        label: of the run, for a legend.
        kind: what runs of other depths have in common with it.
        depth: weighted layers.
        steps: int.
        train_error: share of wrong answers on the training images, 0 to 1.
        eval_error: on the evaluation images.
    """

    label: str
    kind: str
    depth: int
    steps: np.ndarray
    train_error: np.ndarray
    eval_error: np.ndarray
