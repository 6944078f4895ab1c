"""Pictures of final errors: the runs of each row, and the rankings of a column as a matrix."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.experiments.statistics import LEVEL
from keras_preact.support.plotting import BLUE, VERMILION, as_png, legend, titled_figure

_WIDTH_INCHES = 10
_LABEL_LETTERS = 46
# How many times the lowest error the highest is on a logarithmic axis, and the axis' end.
_FAR_APART, _LEAST_PERCENT = 10, 0.1

# Opacity of what no test supports.
_PALE = 0.25


@as_png
def errors(rows, title: str, published: str, measured: str):
    """Draws the final errors of all runs beside the published ones, a line for each row.

    Args:
        rows: (label, errors of the runs in percent, infinite for diverged ones; published error
            in percent, infinite for a failure, or None) of each row.
        title: above the picture.
        published, measured: the headers of the table, for the legend.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    names = [textwrap.fill(label, _LABEL_LETTERS) for label, _, _ in rows]
    lines = sum(name.count("\n") + 1.2 for name in names)
    picture = titled_figure(title, _WIDTH_INCHES, 2.4 + 0.28 * lines)
    axes = picture.subplots()
    finite = [value for _, values, own in rows for value in (*values, own) if value is not None]
    finite = [value for value in finite if value < np.inf]
    is_wide = max(finite, default=0) > _FAR_APART * max(min(finite, default=0), _LEAST_PERCENT)
    right = (1.3 if is_wide else 1.08) * max(finite, default=1) or 1
    for place, (_, values, own) in enumerate(rows):
        ends = np.minimum(values, right)
        alpha = {"alpha": 0.55, "clip_on": False, "zorder": 3}
        fails = np.isinf(values)
        axes.plot(ends[~fails], np.full((~fails).sum(), place), "o", color=BLUE, **alpha)
        if len(values) and np.isfinite(middle := np.median(values)):
            axes.plot([middle] * 2, [place - 0.32, place + 0.32], color=BLUE, linewidth=2.4)
        if fails.any():
            number = f"{fails.sum()} " if len(values) > 1 else ""
            axes.plot([right], [place], "X", color=VERMILION, clip_on=False, zorder=3)
            text = {"xytext": (-8, 0), "textcoords": "offset points", "va": "center"}
            text |= {"ha": "right", "color": VERMILION, "fontsize": 8}
            axes.annotate(f"{number}diverged", (right, place), **text)
        if own is not None and np.isinf(own):
            text = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate("published: fail", (right, place), **text, fontsize=8)
        elif own is not None:
            axes.plot([own], [place], "D", color="black", markerfacecolor="none", zorder=4)
    axes.set_yticks(range(len(rows)), names, fontsize=9)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="test error (%)")
    if is_wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(LogLocator(subs=range(1, 10)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(max(0.8 * min(finite), _LEAST_PERCENT), right)
    else:
        axes.set_xlim(0, right)
    axes.grid(alpha=0.3)
    marker = {"linestyle": "", "color": BLUE}
    handles = [
        Line2D([], [], marker="o", alpha=0.55, label=f"{measured}: a run", **marker),
        Line2D([], [], marker="|", markersize=14, markeredgewidth=2.4, label="median", **marker),
    ]
    if any(own is not None for *_, own in rows):
        look = {"marker": "D", "linestyle": "", "color": "black", "markerfacecolor": "none"}
        handles.append(Line2D([], [], label=published, **look))
    legend(picture, handles)
    return picture


@as_png
def order(names: Sequence[str], cells: Sequence[tuple[int, int, str, bool]], title: str):
    """Draws the rankings of a column as a matrix: the lower error of two is left, its other above.

    Args:
        names: of rows, by published error.
        cells: (place of the better row, of the worse, "+", "\N{MINUS SIGN}" or "?", whether a
            test confirms it).
        title: above the picture.
    """
    from matplotlib.patches import Patch, Rectangle

    left = sorted({better for better, *_ in cells})
    above = sorted({worse for _, worse, *_ in cells})
    letters = max(map(len, names))
    width = 0.36 * len(above) + 0.085 * letters + 0.6
    height = 0.36 * len(left) + 0.075 * letters + 1.2
    picture = titled_figure(title, max(width, 6), height)
    axes = picture.subplots()
    colors = {
        "+": (BLUE, (BLUE, _PALE)),
        "\N{MINUS SIGN}": (VERMILION, (VERMILION, _PALE)),
        "?": ("0.9", "0.9"),
    }
    for better, worse, sign, clear in cells:
        x, y = above.index(worse), left.index(better)
        color = colors[sign][0 if clear else 1]
        axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=color, linewidth=0))
        style = {"ha": "center", "va": "center", "fontweight": "bold" if clear else "normal"}
        axes.text(x, y, sign, color="white" if clear else "black", **style)
    axes.set_xticks(range(len(above)), [names[place] for place in above], rotation=90, fontsize=8)
    axes.set_yticks(range(len(left)), [names[place] for place in left], fontsize=8)
    axes.xaxis.tick_top()
    axes.set(xlim=(-0.5, len(above) - 0.5), ylim=(len(left) - 0.5, -0.5))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    words = {"+": "same order", "\N{MINUS SIGN}": "reversed", "?": "undecided"}
    handles = [
        Patch(color=color, label=words[sign] + clear * f", p \N{LESS-THAN OR EQUAL TO} {LEVEL:g}")
        for sign in words
        for clear, color in zip((1, 0), colors[sign], strict=True)
        if (sign, bool(clear)) in {(cell[2], cell[3]) for cell in cells}
    ]
    legend(picture, handles)
    return picture
