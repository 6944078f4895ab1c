"""Pictures of lesions, of the lengths of paths and of a training, as PNG files in memory."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis.results import Lesions, PathLengths
from keras_preact.support.plotting import (
    COLORS,
    UNIT_LABEL,
    as_png,
    fit_log,
    legend,
    marked,
    note,
    plain,
    positive,
    titled_figure,
    unit_axis,
)

# Of the gradient's magnitude: what the shaded range of `path_lengths` holds.
SHADED_SHARE = 0.95
_MOST_TICKS = 16
# Of the name of a unit.
_MOST_LETTERS = 40


@as_png(formulas=True)
def lesions(lesions: Lesions, title: str, chance: float | None) -> bytes:
    """The accuracy after each deletion and each swap of units, as a PNG file.

    A swap stands midway between its two units. A unit that cannot be taken out has no marker.

    Args:
        lesions: of one unit at least.
        title: above the picture.
        chance: accuracy of guessing, 0 to 1; no line for None.
    """
    picture = titled_figure(title, 9, 4.4)
    axes = picture.subplots()
    count = len(lesions.units)
    percent = 100 * np.asarray(lesions.deleted_accuracy)
    style = {"color": COLORS[5], "marker": "o", "markersize": 4 if count < 100 else 2}
    handles = axes.plot(
        np.arange(1, count + 1), percent, linewidth=0.8, label="one unit deleted", **style
    )
    if len(lesions.swapped):
        middles = np.mean(lesions.swapped, axis=1) + 1
        style = {"color": COLORS[1], "marker": "x", "linestyle": "none", "markersize": 5}
        swapped = 100 * np.asarray(lesions.swapped_accuracy)
        handles += axes.plot(middles, swapped, label="two units swapped", **style)
    unchanged = axes.axhline(100 * lesions.accuracy, color="black", linewidth=1.2)
    unchanged.set_label(f"unchanged: {100 * lesions.accuracy:.2f} %")
    handles.append(unchanged)
    if chance is not None:
        guessed = axes.axhline(100 * chance, color="0.4", linewidth=1.2, linestyle=":")
        guessed.set_label(f"chance: {100 * chance:g} %")
        handles.append(guessed)
    axes.set(xlabel=UNIT_LABEL, ylim=(-3, 103))
    axes.set_ylabel(f"accuracy on {lesions.images:,} images (%)")
    axes.grid(alpha=0.3)
    unit_axis(axes, count)
    legend(picture, handles)
    return picture


def holding_range(share: np.ndarray) -> tuple[int, int] | None:
    """The lengths that hold 95 % of the gradient: the tails cut off on both sides hold 2.5 %
    each at most. Negative shares count by their magnitude.

    Args:
        share: (lengths,).

    Returns:
        The first length and the last, or None if all shares are 0 or one is not finite.
    """
    size = np.abs(np.asarray(share, "float64"))
    if not np.isfinite(size).all() or not size.any():
        return None
    tail = (1 - SHADED_SHARE) / 2
    below = np.cumsum(size) / size.sum()
    above = np.cumsum(size[::-1]) / size.sum()
    return int(np.argmax(below > tail)), len(size) - 1 - int(np.argmax(above > tail))


@as_png(formulas=True)
def path_lengths(path_lengths: PathLengths, title: str) -> bytes:
    """How many paths have each length, and how much of the gradient came along them, as a PNG
    file.

    The shaded lengths hold 95 % of the gradient; see `holding_range`.

    Args:
        path_lengths: of one unit at least.
        title: above the picture.
    """
    picture = titled_figure(title, 9, 6)
    upper, lower = picture.subplots(2, 1, sharex=True)
    lengths = np.arange(len(path_lengths.paths))
    style = {"color": COLORS[5], "marker": "o", "markersize": 4}
    paths = positive(path_lengths.paths)
    upper.plot(lengths, paths, markevery=marked(paths, 0), **style)
    # The binomial coefficients of 333 units span a hundred decades.
    fit_log(upper, paths, most_decades=np.inf)
    upper.set_ylabel("number of paths")
    percent = 100 * np.asarray(path_lengths.share)
    lower.bar(lengths, np.where(np.isfinite(percent), percent, 0), 0.9, color=COLORS[5])
    lower.axhline(0, color="0.5", linewidth=0.8)
    lower.set(xlabel="length of the path (residual functions)", ylabel="share of the gradient (%)")
    lower.set_xlim(-0.6, lengths[-1] + 0.6)
    lower.xaxis.get_major_locator().set_params(integer=True)
    held = holding_range(path_lengths.share)
    if held is None:
        note(lower, "no gradient, or one that is not finite")
    else:
        words = f"{held[0]} to {held[1]}" if held[0] < held[1] else f"{held[0]}"
        shade = {"color": COLORS[6], "alpha": 0.25, "linewidth": 0, "zorder": 0}
        for axes in (upper, lower):
            band = axes.axvspan(held[0] - 0.5, held[1] + 0.5, **shade)
        band.set_label(f"{SHADED_SHARE:.0%} of the gradient: length {words}".replace("%", " %"))
        legend(picture, [band])
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return picture


@as_png(formulas=True)
def over_training(
    steps: np.ndarray,
    units: Sequence[str],
    values: np.ndarray,
    label: str,
    title: str,
    log: bool,
) -> bytes:
    """How a measurement of each unit changes in training, as a heat map in a PNG file.

    Cells are grey where the value is not finite, or on a log scale not above 0.

    Args:
        steps: (steps,), rising, one at least.
        units: names, first to last; the first is at the bottom.
        values: (steps, units).
        label: of the values, with their unit.
        title: above the picture.
        log: whether the colours are on a log scale.
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import MaxNLocator

    count = len(units)
    picture = titled_figure(title, 9, 5)
    axes = picture.subplots()
    values = np.asarray(values, "float64").T
    hidden = ~np.isfinite(values) | (log & (values <= 0))
    shown = values[~hidden]
    low, high = (shown.min(), shown.max()) if shown.size else (1, 1)
    if low == high:
        low, high = (low / 2, 2 * high) if log else (low - 0.5, high + 0.5)
    middles = (steps[1:] + steps[:-1]) / 2
    first, last = middles[[0, -1]] if len(steps) > 1 else (steps[0] + 0.5, steps[0] - 0.5)
    edges = [max(2 * steps[0] - first, 0), *middles, 2 * steps[-1] - last]
    norm = (LogNorm if log else Normalize)(low, high)
    cells = np.ma.masked_where(hidden, values)
    mesh = axes.pcolormesh(edges, np.arange(count + 1) + 0.5, cells, cmap="cividis", norm=norm)
    picture.colorbar(mesh, label=plain(label))
    if hidden.all():
        note(axes, "nothing to draw")
    axes.set_facecolor("0.8")
    axes.set(xlabel="training step", ylabel=UNIT_LABEL)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    named = np.unique(np.linspace(0, count - 1, min(count, _MOST_TICKS)).round().astype(int))
    names = [plain(units[place][:_MOST_LETTERS]) for place in named]
    axes.set_yticks(named + 1, names, fontsize="small")
    return picture
