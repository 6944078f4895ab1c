"""The gradient in networks that have not been trained, over several draws of the weights."""

from collections.abc import Callable

import keras
import numpy as np

from keras_preact.analysis import chain
from keras_preact.analysis.backward_pass import Loss, of_chain
from keras_preact.analysis.results import Initialisation


def initialisation(
    build: Callable[[int], keras.Model],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    label: str,
    depth: int,
    draws: int = 5,
    loss: Loss | None = None,
) -> Initialisation:
    """Measures the gradient at every unit of new networks.

    Args:
        build: build(draw) returns a network with new weights, for draw 0, 1, ...
        images: (batch, height, width, channels), as the networks take them.
        labels: int (batch,).
        label: of the networks, for legends.
        depth: weighted layers, for pictures.
        draws: number of networks.
        loss: as in `backward`.

    Raises:
        ValueError: if draws is not above 0, or as `backward` does.

    Source: "Identity Mappings in Deep Residual Networks", equations (5) and (8).
    """
    if draws < 1:
        raise ValueError(f"draws must be above 0. Received: draws={draws}")
    results = [
        of_chain(chain.take_apart(build(draw)), images, labels, loss) for draw in range(draws)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        gradient, shortcut = (
            np.array([getattr(r, name) / r.output_gradient_norm for r in results])
            for name in ("gradient_norm", "shortcut_norm")
        )
    product = np.mean([result.shortcut_product for result in results], axis=0)
    return Initialisation(label, depth, results[0].units, gradient, shortcut, product)
