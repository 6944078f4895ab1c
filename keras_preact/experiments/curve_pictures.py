"""Pictures of learning curves: all rows in one, and a panel for each row."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.experiments.row_curves import Band, RowCurves
from keras_preact.experiments.statistics import LEVEL
from keras_preact.support.plotting import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    VERMILION,
    as_png,
    figure,
    legend,
    note,
    titled_figure,
)

TRAIN_COLOR, EVAL_COLOR = ORANGE, BLUE
_LINES = ("-", "--", "-.")
_WIDTH_INCHES = 10
_PANEL_LETTERS = 42
_LABEL_LETTERS = 46
_LINE_INCHES = 0.18
# Of the last part of training, the errors decide how high the axis reaches.
_LAST_PART = 0.8
_FEWEST_FOR_LINES = 2


@as_png
def overview(rows: Sequence[RowCurves], title: str, error: str):
    """Draws the median curves of all rows into one panel, each with its name at its end.

    Args:
        rows: with a curve each.
        title: above the picture.
        error: name of the error on the y axis, as in "test error".
    """
    last = max(row.main.steps[-1] for row in rows)
    ends = [100 * row.main.median[-1] for row in rows]
    names = [
        textwrap.fill(f"{end:.2f}  {_ending(row, last)}", _LABEL_LETTERS, subsequent_indent="  ")
        for end, row in zip(ends, rows, strict=True)
    ]
    lines = [name.count("\n") + 1 for name in names]
    height = max(4.5, _LINE_INCHES * sum(lines) + 1.3)
    picture = figure(figsize=(_WIDTH_INCHES, height))
    # Constrained layout would shrink the axes to the height of the names.
    picture.set_layout_engine("none")
    picture.suptitle(textwrap.fill(title, 90))
    axes = picture.add_axes((0.07, 0.6 / height, 0.58, 1 - 1.2 / height))
    top = _top(rows)
    for place, row in enumerate(rows):
        curve, look = row.main, _look(place)
        axes.plot(curve.steps, 100 * curve.median, linewidth=1.8, **look, **_marker(curve))
        if curve.runs > 1:
            limits = 100 * curve.low, 100 * curve.high
            axes.fill_between(curve.steps, *limits, color=look["color"], alpha=0.12, linewidth=0)
    for step in {step for row in rows for step in row.drop_steps}:
        _drop(axes, step)
    bottom = _bottom_of(rows, top)
    axes.set(xlabel="step", ylabel=f"{error} (%)", ylim=(bottom, top), xlim=(0, last))
    _step_axis(axes, last)
    axes.grid(alpha=0.3)
    heights = [_LINE_INCHES * number / (height - 1.2) for number in lines]
    ends = [min((end - bottom) / (top - bottom), 1) for end in ends]
    for number, (row, end, name, place) in enumerate(
        zip(rows, ends, names, apart(ends, heights), strict=True)
    ):
        look = {"transform": axes.transAxes, "clip_on": False, "color": _look(number)["color"]}
        axes.plot([row.main.steps[-1] / last, 1.03], [end, place], linewidth=0.7, **look)
        axes.text(1.04, place, name, va="center", fontsize=8.5, **look)
    return picture


def _ending(row, last):
    """The name of a row, with the step where its curve ends before the others."""
    end = int(row.main.steps[-1])
    if row.diverged and end < last:
        return f"{row.label} (diverged)"
    return row.label if end == last else f"{row.label} (step {end:,})"


def apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Moves places in 0 to 1 as little as needed for boxes of these heights not to overlap.

    Boxes stay in 0 to 1 where they have room.
    """
    order = sorted(range(len(places)), key=lambda place: places[place])
    # Groups of boxes that touch: (their numbers, height, bottom).
    groups: list[tuple[list[int], float, float]] = []
    for number in order:
        members, height = [number], heights[number]
        bottom = _bottom(places, members, height)
        while groups and groups[-1][2] + groups[-1][1] > bottom:
            below, its_height, _ = groups.pop()
            members, height = [*below, *members], its_height + height
            bottom = _bottom(places, members, height)
        groups.append((members, height, bottom))
    found = [0.0] * len(places)
    for members, _, bottom in groups:
        for number in members:
            found[number] = bottom + heights[number] / 2
            bottom += heights[number]
    return found


def _bottom(places, members, height):
    middle = float(np.mean([places[number] for number in members]))
    return max(min(middle - height / 2, 1 - height), 0.0)


@as_png
def panels(rows: Sequence[RowCurves], title: str, error: str):
    """Draws a panel for each row, as in figure 6 of the paper: training thin, test bold.

    The curves of the other rows are grey behind it.

    Args:
        rows: of a column; those without a curve have an empty panel.
        title: above the picture.
        error: as for `overview`.
    """
    from matplotlib.lines import Line2D

    across = min(3, len(rows))
    down = -(-len(rows) // across)
    width = _WIDTH_INCHES if across > 1 else 0.6 * _WIDTH_INCHES
    picture = titled_figure(title, width, 2.4 * down + 0.4 if across > 1 else 4)
    grid = picture.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    drawn = [row for row in rows if row.main]
    top = _top(drawn)
    for number, axes in enumerate(np.ravel(grid)):
        if number >= len(rows):
            axes.set_axis_off()
            continue
        for other in drawn:
            axes.plot(other.main.steps, 100 * other.main.median, color="0.85", linewidth=0.8)
        _panel(axes, rows[number])
        # The last panel of a column may not be in the last line.
        axes.tick_params(labelbottom=number + across >= len(rows))
    for axes in grid[:, 0]:
        axes.set_ylabel("error (%)")
    for axes in np.ravel(grid)[max(0, len(rows) - across) : len(rows)]:
        axes.set_xlabel("step")
    last = max((each.steps[-1] for row in drawn for each in _bands(row)), default=1)
    grid[0, 0].set(ylim=(0, top), xlim=(0, last))
    _step_axis(grid[0, 0], last)
    handles = [
        Line2D([], [], color=EVAL_COLOR, linewidth=2.4, label=error),
        Line2D([], [], color=TRAIN_COLOR, linestyle="--", linewidth=1, label="training error"),
        Line2D([], [], color="0.85", linewidth=0.8, label="the other rows"),
    ]
    if any(row.drop_steps for row in rows):
        handles.append(Line2D([], [], color=GREY, linestyle=":", label="learning rate drops"))
    legend(picture, handles)
    return picture


def _bands(row):
    return [band for band in (row.training, row.evaluation) if band]


def _panel(axes, row):
    axes.set_title(textwrap.fill(row.label, _PANEL_LETTERS), fontsize=9)
    axes.grid(alpha=0.3)
    for band, color, look in (
        (row.training, TRAIN_COLOR, {"linestyle": "--", "linewidth": 1}),
        (row.evaluation, EVAL_COLOR, {"linewidth": 2.2}),
    ):
        if not band:
            continue
        axes.plot(band.steps, 100 * band.median, color=color, **look, **_marker(band))
        if band.runs > 1:
            axes.fill_between(
                band.steps, 100 * band.low, 100 * band.high, color=color, alpha=0.25, linewidth=0
            )
    for step in row.drop_steps:
        _drop(axes, step)
    for step in row.diverged:
        axes.axvline(step, color=VERMILION, linewidth=1.2)
    if row.diverged:
        number = f"{len(row.diverged)} " if len(row.diverged) > 1 else ""
        _corner(axes, f"{number}diverged", VERMILION)
    elif row.main:
        _corner(axes, f"{100 * row.main.median[-1]:.2f} %", EVAL_COLOR if not row.is_logged else
                TRAIN_COLOR)  # fmt: skip
    else:
        note(axes, "no curve yet")


def _corner(axes, text, color):
    axes.annotate(
        text, (1, 1), (-5, -5), xycoords="axes fraction", textcoords="offset points", ha="right",
        va="top", color=color, fontsize=9, bbox={"color": "white", "alpha": 0.8, "pad": 1},
    )  # fmt: skip


def _step_axis(axes, last):
    """Few numbers that do not run into each other: 20k for 20,000."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if last >= 10_000:
        thousands = FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0")
        axes.xaxis.set_major_formatter(thousands)


def _drop(axes, step):
    axes.axvline(step, color=GREY, linestyle=":", linewidth=1, zorder=0)


def _marker(band: Band) -> dict:
    return {"marker": "o", "markersize": 4} if len(band.steps) <= _FEWEST_FOR_LINES else {}


def _look(place):
    return {
        "color": COLORS[place % len(COLORS)],
        "linestyle": _LINES[place // len(COLORS) % len(_LINES)],
    }


def _top(rows: Sequence[RowCurves]) -> float:
    """The upper end of the error's axis, in percent: high enough for the later training."""
    last = max((band.steps[-1] for row in rows for band in _bands(row)), default=0)
    late = [
        100 * value
        for row in rows
        for band in _bands(row)
        for step, value in zip(band.steps, band.high, strict=True)
        if step >= (1 - _LAST_PART) * last
    ]
    return min(100, 1.12 * max(late, default=100)) or 1


def _bottom_of(rows, top):
    """0, but for early training: there, all errors may be far above it."""
    lowest = min(float(100 * row.main.low.min()) for row in rows)
    return 0 if lowest < top / 2 else lowest - 0.1 * (top - lowest)


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

    names = [textwrap.fill(label, _LABEL_LETTERS) for label, _, _ in rows]
    lines = sum(name.count("\n") + 1.2 for name in names)
    picture = titled_figure(title, _WIDTH_INCHES, 1.4 + 0.24 * lines)
    axes = picture.subplots()
    finite = [value for _, values, own in rows for value in (*values, own or 0) if value < np.inf]
    right = 1.08 * max(finite, default=1) or 1
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
    axes.set(xlim=(0, right), ylim=(len(rows) - 0.4, -0.6), xlabel="test error (%)")
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
    colors = {"+": (BLUE, "#BFD9EA"), "\N{MINUS SIGN}": (VERMILION, "#F3CDB5"), "?": ("0.9",) * 2}
    for better, worse, sign, clear in cells:
        x, y = above.index(worse), left.index(better)
        color = colors[sign][0 if clear else 1]
        axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=color, linewidth=0))
        style = {"ha": "center", "va": "center", "fontweight": "bold" if clear else "normal"}
        axes.text(x, y, sign, color="white" if clear else "black", **style)
    axes.set_xticks(range(len(above)), [names[place] for place in above], rotation=90, fontsize=8)
    axes.set_yticks(range(len(left)), [names[place] for place in left], fontsize=8)
    axes.xaxis.tick_top()
    limits = {"xlim": (-0.5, len(above) - 0.5), "ylim": (len(left) - 0.5, -0.5)}
    axes.set(**limits, aspect="equal")
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
