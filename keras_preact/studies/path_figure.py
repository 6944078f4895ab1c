"""The gradient by the length of the paths it came along, as a figure."""

import keras
import numpy as np

from keras_preact.analysis import PathLengths, path_lengths
from keras_preact.studies.formulas import Equation, Html, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import number, percent
from keras_preact.support.plotting import (
    BLUE,
    ORANGE,
    as_png,
    fit_log,
    legend,
    marked,
    note,
    positive,
    titled_figure,
)

# The work of `path_lengths` grows with the square of the units.
MOST_UNITS = 60
IMAGES = 16
# Fraction of the gradient's magnitude in the shaded range of the picture.
SHADED_SHARE = 0.95
_EQUATION = Equation(r"\frac{\partial E}{\partial x_1} = \sum_{k=0}^{n} c_k")


def figure(model: keras.Model, images: np.ndarray, labels: np.ndarray, label: str) -> Figure:
    """Measures the path lengths of a network on the first few images, and draws them.

    Args:
        model, images, labels: as `analysis.path_lengths` takes them.
        label: of the network, for the title.
    """
    lengths = path_lengths(model, images[:IMAGES], labels[:IMAGES])
    return Figure(
        "path_lengths",
        "The lengths of the paths that the gradient comes along",
        caption(lengths),
        draw(lengths, f"Path lengths: {label}"),
        "Number of paths and part of the gradient by path length",
        [_EQUATION],
    )


def caption(lengths: PathLengths) -> Html:
    """Compares the lengths of the gradient's paths with those of all paths."""
    units = len(lengths.units)
    text = (
        f"Each path goes through $h$ or $\\mathcal{{F}}$ of each unit, so $n={units}$ units make "
        f"$2^{{{units}}}$ paths; $c_k$ is the sum of what comes along those through $k$ residual "
        "functions."
    )
    gradient, paths = holding_range(lengths.share), holding_range(lengths.paths)
    if gradient is None:
        return with_formulas(
            f"{text} The gradient is 0 or not finite, so no part of it has a length."
        )
    size = np.abs(lengths.share)
    mean = np.sum(size * np.arange(units + 1)) / np.sum(size)
    text += (
        f" {percent(SHADED_SHARE)} of the gradient came along paths of length {_range(gradient)}, "
        f"{number(mean)} in the mean; as many of the paths have length {_range(paths)}, "
        f"{number(units / 2)} in the mean."
    )
    against = lengths.share[lengths.share < 0]
    if against.size:
        text += f" Parts below 0, {percent(against.sum())} in all, work against the others."
    found = "shorter than most, as" if mean < units / 2 else "not shorter than most, unlike what"
    return with_formulas(f"{text} Its paths are {found} Veit et al. (2016) found in deep nets.")


def _range(ends):
    return f"{ends[0]} to {ends[1]}" if ends[0] < ends[1] else f"{ends[0]}"


def holding_range(share: np.ndarray) -> tuple[int, int] | None:
    """The lengths that hold 95 % of some shares; the tails on both sides hold 2.5 % at most.

    Args:
        share: (lengths,). Negative ones count by their magnitude.

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
def draw(lengths: PathLengths, title: str) -> bytes:
    """Draws how many paths have each length, and how much of the gradient came along them.

    The shaded lengths hold 95 % of the gradient; see `holding_range`.
    """
    picture = titled_figure(title, 9, 6)
    upper, lower = picture.subplots(2, 1, sharex=True)
    numbers = np.arange(len(lengths.paths))
    style = {"color": BLUE, "marker": "o", "markersize": 4}
    paths = positive(lengths.paths)
    upper.plot(numbers, paths, markevery=marked(paths, 0), **style)
    # The binomial coefficients of 333 units span a hundred decades.
    fit_log(upper, paths, most_decades=np.inf)
    upper.set_ylabel("number of paths")
    percent = 100 * np.asarray(lengths.share)
    lower.bar(numbers, np.where(np.isfinite(percent), percent, 0), 0.9, color=BLUE)
    lower.axhline(0, color="0.5", linewidth=0.8)
    lower.set(xlabel="length of the path (residual functions)", ylabel="part of the gradient (%)")
    lower.set_xlim(-0.6, numbers[-1] + 0.6)
    lower.xaxis.get_major_locator().set_params(integer=True)
    held = holding_range(lengths.share)
    if held is None:
        note(lower, "the gradient is 0 or not finite")
    else:
        words = f"{held[0]} to {held[1]}" if held[0] < held[1] else f"{held[0]}"
        shade = {"color": ORANGE, "alpha": 0.25, "linewidth": 0, "zorder": 0}
        for axes in (upper, lower):
            band = axes.axvspan(held[0] - 0.5, held[1] + 0.5, **shade)
        band.set_label(f"{SHADED_SHARE:.0%} of the gradient: length {words}".replace("%", " %"))
        legend(picture, [band])
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
    return picture
