"""The records of a training, propagation.csv, as figures."""

from collections.abc import Sequence

import numpy as np

from keras_preact.studies.formulas import EQUATIONS, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import are_alike, number, percent
from keras_preact.support.page import Html
from keras_preact.support.plotting import HEAT, UNIT_LABEL, as_png, note, plain, titled_figure
from keras_preact.training.reporting.propagation_file import PropagationLog

_MOST_TICKS = 16
# Letters of a unit's name.
_MOST_LETTERS = 40


def figures(log: PropagationLog, label: str) -> list[Figure]:
    """The figures of a run's records; level lines become a sentence.

    Args:
        log: the records.
        label: of the network, for the titles.
    """
    truncated, norm = log.truncated_fraction, log.gradient_norm
    names = {"steps": log.steps, "units": log.units}
    return [
        Figure(
            "truncation_in_training",
            "Truncation while training",
            truncation_caption(log),
            None
            if are_alike(truncated)
            else draw(
                **names,
                values=100 * truncated,
                label="elements zeroed (%)",
                title=f"Truncation in training: {label}",
                log=False,
            ),
            "Percentage that f zeroes, by training step and unit",
            [EQUATIONS[2]],
        ),
        Figure(
            "gradient_in_training",
            "The gradient while training",
            gradient_caption(log),
            None
            if are_alike(norm)
            else draw(
                **names,
                values=norm,
                label="norm of the gradient",
                title=f"Gradient in training: {label}",
                log=True,
            ),
            "Norm of the gradient, by training step and unit",
            [EQUATIONS[5]],
        ),
    ]


def truncation_caption(log: PropagationLog) -> Html:
    """Compares the percentages that f zeroes at the first and the last record."""
    zeroed = log.truncated_fraction
    if not np.any(zeroed):
        return with_formulas(f"$f$ zeroes no element of any sum $y_l$ {_span(log)}.")
    first, last = (percent(row.mean()) for row in zeroed[[0, -1]])
    return with_formulas(
        f"In the mean over the units $f$ zeroes {first} of the sum $y_l$ at step "
        f"{log.steps[0]:,} and {last} at step {log.steps[-1]:,}; at most "
        f"{_extreme(log, zeroed, np.nanargmax, percent)}. The paper (section 5) says that in its "
        "original ResNet-164 training adjusts the weights until $f$ seldom truncates, and that it "
        "truncates more often with 1001 layers."
    )


def gradient_caption(log: PropagationLog) -> Html:
    """Compares the norms of the gradient at the first and the last record, and names extremes."""
    norm = np.where(np.isfinite(log.gradient_norm), log.gradient_norm, np.nan)
    if np.isnan(norm).all():
        return with_formulas(f"The gradient is not finite in any unit {_span(log)}.")
    first, last = (number(np.median(row)) for row in log.gradient_norm[[0, -1]])
    return with_formulas(
        f"In the median over the units the norm of the gradient is {first} at step "
        f"{log.steps[0]:,} and {last} at step {log.steps[-1]:,}. It is smallest with "
        f"{_extreme(log, norm, np.nanargmin, number)} and largest with "
        f"{_extreme(log, norm, np.nanargmax, number)}."
    )


def _span(log):
    return f"from step {log.steps[0]:,} to step {log.steps[-1]:,}"


def _extreme(log, values, find, show):
    record, unit = np.unravel_index(find(values), values.shape)
    return f"{show(values[record, unit])} (step {log.steps[record]:,}, {plain(log.units[unit])})"


@as_png(formulas=True)
def draw(
    steps: np.ndarray,
    units: Sequence[str],
    values: np.ndarray,
    label: str,
    title: str,
    log: bool,
) -> bytes:
    """Draws how a measurement of each unit changes in training, as a heat map in a PNG file.

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
    mesh = axes.pcolormesh(edges, np.arange(count + 1) + 0.5, cells, cmap=HEAT, norm=norm)
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
