"""The learning curves and final errors of several runs as pictures, as PNG files in memory."""

import textwrap
from collections.abc import Sequence

from keras_preact.studies.run_curves import RunCurves
from keras_preact.support.plotting import (
    COLORS,
    MARKERS,
    as_png,
    legend,
    marked,
    plain,
    titled_figure,
)

_ERROR_LABEL = "error (%)"
_HALF_SPLIT = 0.15
# Longer names at the side are wrapped.
_LABEL_LETTERS = 36


@as_png(formulas=True)
def curves(runs: Sequence[RunCurves], title: str) -> bytes:
    """Errors of all runs against the step, as in figure 6 of the paper: a PNG file.

    Training is dashed, evaluation solid.

    Args:
        runs: one at least, each with an evaluation at least.
        title: above the picture.
    """
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    for place, run in enumerate(runs):
        style = {"color": COLORS[place % len(COLORS)], "markersize": 5}
        style |= {"marker": MARKERS[place % len(MARKERS)], "markevery": marked(run.eval_error, 0)}
        axes.plot(run.steps, 100 * run.eval_error, label=plain(run.label), **style)
        axes.plot(run.steps, 100 * run.train_error, linestyle="--", linewidth=1, **style)
    axes.set(xlabel="step", ylabel=_ERROR_LABEL, ylim=(0, None))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


@as_png(formulas=True)
def final_errors(runs: Sequence[RunCurves], title: str) -> bytes:
    """The last errors of all runs: against the depth, where there are several; a PNG file.

    Args:
        runs: one at least, each with an evaluation at least.
        title: above the picture.
    """
    if len({run.depth for run in runs}) > 1:
        return _by_depth(runs, title)
    names = [plain(textwrap.fill(run.label, _LABEL_LETTERS)) for run in runs]
    lines = 1 + max(name.count("\n") for name in names)
    picture = titled_figure(title, 9, 1.6 + max(0.5, 0.2 * lines) * len(runs))
    axes = picture.subplots()
    for place, run in enumerate(runs):
        for error, offset, fill in (
            (run.eval_error, -_HALF_SPLIT, COLORS[5]),
            (run.train_error, _HALF_SPLIT, "none"),
        ):
            axes.barh(place + offset, 100 * error[-1], 0.28, color=fill, edgecolor=COLORS[5])
            axes.annotate(
                f"{100 * error[-1]:.2f}",
                (100 * error[-1], place + offset),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize="small",
            )
    axes.set_yticks(range(len(runs)), names)
    axes.invert_yaxis()
    axes.set_xlabel(_ERROR_LABEL)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    from matplotlib.patches import Patch

    filled = {"evaluation": COLORS[5], "training": "none"}
    legend(
        picture,
        [Patch(facecolor=fill, edgecolor=COLORS[5], label=name) for name, fill in filled.items()],
    )
    return picture


def _by_depth(runs, title):
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    kinds = [*dict.fromkeys(run.kind for run in runs)]
    for place, kind in enumerate(kinds):
        of_kind = sorted((run for run in runs if run.kind == kind), key=lambda run: run.depth)
        depths = [run.depth for run in of_kind]
        style = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
        errors = [100 * run.eval_error[-1] for run in of_kind]
        axes.plot(depths, errors, label=plain(kind), **style)
        errors = [100 * run.train_error[-1] for run in of_kind]
        axes.plot(depths, errors, linestyle="--", linewidth=1, **style)
    axes.set(xlabel="depth (weighted layers)", ylabel=_ERROR_LABEL, ylim=(0, None))
    axes.grid(alpha=0.3)
    legend(picture, [*axes.get_lines()[::2], *_splits()])
    return picture


def _splits():
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="0.3", label="evaluation"),
        Line2D([], [], color="0.3", linestyle="--", linewidth=1, label="training"),
    ]
