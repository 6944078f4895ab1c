"""The gradient in each unit of a network as a picture, as a PNG file in memory."""

import numpy as np

from keras_preact.analysis.results import Backward
from keras_preact.support.plotting import (
    BLACK,
    UNIT_LABEL,
    as_png,
    legend,
    lines,
    marked,
    note,
    titled_figure,
    unit_axis,
)

GRADIENT_LABEL = "Euclidean norm of the gradient"


def gradient_lines(backward: Backward) -> dict[str, np.ndarray]:
    """The norms of the gradient and its two terms of equation (5), by their names in a legend."""
    return {
        r"$\partial E / \partial x_l$": backward.gradient_norm,
        "first term: through shortcuts alone": backward.shortcut_norm,
        "second term: through residual functions": backward.residual_norm,
    }


@as_png(formulas=True)
def gradient(backward: Backward, title: str) -> bytes:
    """Draws the gradient at the input of each unit and the two terms of equation (5).

    The panel below has the cosine of the angle between the terms, except where one is 0.
    """
    picture = titled_figure(title, 9, 5.6)
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    lines(upper, gradient_lines(backward), log=True)
    upper.set_ylabel(GRADIENT_LABEL)
    cosine = np.asarray(backward.cosine)
    count = len(cosine)
    style = {"color": BLACK, "linewidth": 1.2, "marker": "o", "markersize": 3}
    lower.plot(np.arange(1, count + 1), cosine, markevery=marked(cosine, 0), **style)
    if not np.isfinite(cosine).any():
        note(lower, "one of the terms is 0")
    lower.axhline(0, color="0.5", linewidth=0.8)
    lower.set(xlabel=UNIT_LABEL, ylabel="cosine between\nthe two terms", ylim=(-1.05, 1.05))
    lower.set_yticks((-1, 0, 1))
    lower.grid(alpha=0.3)
    unit_axis(upper, count, backward.stages)
    unit_axis(lower, count, backward.stages, names=False)
    legend(picture, upper.get_lines()[:3])
    return picture
