"""The curves of a run, read from its folder."""

import dataclasses

import numpy as np


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
