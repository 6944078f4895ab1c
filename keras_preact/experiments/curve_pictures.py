"""Pictures of learning curves: all rows in one, and a panel for each row."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.experiments.row_curves import Band, RowCurves
from keras_preact.support.plotting import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    VERMILION,
    as_png,
    figure,
    fit_log,
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
# How many times the lowest error at the end the highest is on a logarithmic axis, and its end.
_FAR_APART, _LEAST_PERCENT = 4, 0.1


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
    for place, row in enumerate(rows):
        curve, look = row.main, _look(place)
        axes.plot(curve.steps, 100 * curve.median, linewidth=1.8, **look, **_marker(curve))
        if curve.runs > 1:
            limits = 100 * curve.low, 100 * curve.high
            axes.fill_between(curve.steps, *limits, color=look["color"], alpha=0.12, linewidth=0)
    for step in {step for row in rows for step in row.drop_steps}:
        _drop(axes, step)
    axes.set(xlabel="step", ylabel=f"{error} (%)", xlim=(0, last))
    _step_axis(axes, last)
    _error_axis(axes, rows, [row.main for row in rows])
    axes.grid(alpha=0.3)
    heights = [_LINE_INCHES * number / (height - 1.2) for number in lines]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(np.clip(to_axes.transform((0, max(end, 1e-9)))[1], 0, 1)) for end in ends]
    for number, (row, end, name, place) in enumerate(
        zip(rows, ends, names, apart(ends, heights), strict=True)
    ):
        look = {"transform": axes.transAxes, "clip_on": False, "color": _look(number)["color"]}
        right = row.main.steps[-1] / last
        line = "-" if right == 1 else ":"
        axes.plot([right, 1.03], [end, place], linewidth=0.7, linestyle=line, **look)
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
    last = max((each.steps[-1] for row in drawn for each in _bands(row)), default=1)
    # Where there are no curves.
    corner = (0, 0) if _are_far_apart(drawn) else (1, 1)
    for number, axes in enumerate(np.ravel(grid)):
        if number >= len(rows):
            axes.set_axis_off()
            continue
        for other in drawn:
            axes.plot(other.main.steps, 100 * other.main.median, color="0.85", linewidth=0.8)
        _panel(axes, rows[number], last, corner)
        # The last panel of a column may not be in the last line.
        axes.tick_params(labelbottom=number + across >= len(rows))
    for axes in grid[:, 0]:
        axes.set_ylabel("error (%)")
    for axes in np.ravel(grid)[max(0, len(rows) - across) : len(rows)]:
        axes.set_xlabel("step")
    grid[0, 0].set_xlim(0, last)
    _step_axis(grid[0, 0], last)
    _error_axis(grid[0, 0], drawn, [band for row in drawn for band in _bands(row)])
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


def _panel(axes, row, last, corner):
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
        _note(axes, corner, f"{number}diverged", VERMILION)
    elif row.main:
        step = int(row.main.steps[-1])
        text = f"{100 * row.main.median[-1]:.2f} %"
        text += f", step {step:,}" if step < last else ""
        _note(axes, corner, text, TRAIN_COLOR if row.is_logged else EVAL_COLOR)
    else:
        note(axes, "no curve yet")


def _note(axes, corner, text, color):
    """Writes into a corner, (0, 0) or (1, 1)."""
    is_upper = corner == (1, 1)
    place = {"xycoords": "axes fraction", "textcoords": "offset points"}
    place |= {"ha": "right", "va": "top"} if is_upper else {"ha": "left", "va": "bottom"}
    box = {"color": "white", "alpha": 0.8, "pad": 1}
    offset = (-5, -5) if is_upper else (5, 5)
    axes.annotate(text, corner, offset, **place, color=color, fontsize=9, bbox=box)


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


def _error_axis(axes, rows: Sequence[RowCurves], bands: Sequence[Band]) -> None:
    """Fits the error's axis, in percent, to the later part of the bands.

    It begins at 0, but for early training, where all errors are far above it. It is logarithmic
    where rows are far apart.
    """
    last = max((band.steps[-1] for band in bands), default=0)
    late = [band.high[band.steps >= (1 - _LAST_PART) * last] for band in bands]
    top = min(100, 112 * max((each.max() for each in late if each.size), default=1)) or 1
    lowest = 100 * min((band.low.min() for band in bands), default=0)
    if _are_far_apart(rows):
        fit_log(axes, np.clip([lowest, top], _LEAST_PERCENT, 100))
        # Training begins near chance.
        axes.set_ylim(top=100)
    else:
        axes.set_ylim(0 if lowest < top / 2 else lowest - 0.1 * (top - lowest), top)


def _are_far_apart(rows):
    """Whether some rows fail beside others, so that one scale cannot show both."""
    ends = [100 * row.main.median[-1] for row in rows]
    return bool(ends) and max(ends) > _FAR_APART * max(min(ends), _LEAST_PERCENT)
