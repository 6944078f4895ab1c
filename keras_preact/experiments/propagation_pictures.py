"""The gradient in the units of all rows of a column, at the start and at the end of training."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.support.plotting import (
    BLUE,
    ORANGE,
    UNIT_LABEL,
    as_png,
    fit_log,
    legend,
    note,
    plain,
    positive,
    titled_figure,
)
from keras_preact.training.reporting.propagation_file import PropagationLog

_WIDTH_INCHES = 10
_PANEL_LETTERS = 42


@as_png(formulas=True)
def gradients(rows: Sequence[tuple[str, PropagationLog]], title: str):
    """Draws the norm of the gradient at the input of each unit, a panel for each row.

    Args:
        rows: label and records of each row.
        title: above the picture.
    """
    from matplotlib.lines import Line2D

    across = min(3, len(rows))
    down = -(-len(rows) // across)
    width = _WIDTH_INCHES if across > 1 else 0.6 * _WIDTH_INCHES
    picture = titled_figure(title, width, 2.4 * down + 0.4 if across > 1 else 4)
    grid = picture.subplots(down, across, sharey=True, squeeze=False)
    for number, axes in enumerate(np.ravel(grid)):
        if number >= len(rows):
            axes.set_axis_off()
            continue
        label, log = rows[number]
        axes.set_title(plain(textwrap.fill(label, _PANEL_LETTERS)), fontsize=9)
        units = np.arange(1, len(log.units) + 1)
        for record, color, width, line in ((0, ORANGE, 1.2, "--"), (-1, BLUE, 2.2, "-")):
            norm = positive(log.gradient_norm[record])
            axes.plot(units, norm, color=color, linewidth=width, linestyle=line)
        if np.isnan(positive(log.gradient_norm[[0, -1]])).all():
            note(axes, "0 or not finite")
        axes.grid(alpha=0.3)
        axes.set_xlim(0.5, len(units) + 0.5)
        if number + across >= len(rows):
            axes.set_xlabel(UNIT_LABEL, fontsize=9)
        if number % across == 0:
            axes.set_ylabel("norm of the gradient", fontsize=9)
    fit_log(grid[0, 0], np.concatenate([log.gradient_norm[[0, -1]].ravel() for _, log in rows]))
    look = {"color": ORANGE, "linestyle": "--", "linewidth": 1.2}
    handles = [Line2D([], [], label=_when("first", 0, rows), **look)]
    look = {"color": BLUE, "linewidth": 2.2}
    handles.append(Line2D([], [], label=_when("last", -1, rows), **look))
    legend(picture, handles)
    return picture


def _when(word, record, rows):
    steps = {int(log.steps[record]) for _, log in rows}
    low, high = min(steps), max(steps)
    step = f"step {low:,}" if low == high else f"steps {low:,} to {high:,}"
    return f"{word} record: {step}"
