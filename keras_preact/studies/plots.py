"""Pictures of how signals and gradients propagate through a network, as PNG files in memory."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.analysis.results import Backward, Forward
from keras_preact.support.plotting import (
    COLORS,
    UNIT_LABEL,
    as_png,
    fit_log,
    legend,
    lines,
    plain,
    titled_figure,
    unit_axis,
)
from keras_preact.training.reporting.propagation_figure import GRADIENT_LABEL, gradient_lines

# Of sums of many float32 numbers, relative to the sum.
ROUNDING = 1e-6
# Below, the scale of `sum_error` is linear and so has a place for 0.
_LINEAR_BELOW = 1e-8
# An odd number: values that are all equal lie in the middle of one.
_FACTOR_BINS = 51
_MOST_COLUMNS = 3
_TITLE_LETTERS = 45


@as_png(formulas=True)
def signals(forward: Forward, title: str) -> bytes:
    """Variance, mean and share of zeros of the five signals of each unit, as a PNG file.

    The scale of the variance is logarithmic if it spans more than a factor of 10.

    Args:
        forward: of one unit at least.
        title: above the picture.
    """
    picture = titled_figure(title, 9, 8.4)
    panels = picture.subplots(3, 1, sharex=True, height_ratios=(2, 1.2, 1.2))
    moments = {
        "$x_l$": forward,
        "$h(x_l)$": forward.shortcut,
        r"$\mathcal{F}(x_l)$": forward.residual,
        "$y_l$": forward.sum,
        "$x_{l+1}$": forward.output,
    }
    variance = {name: signal.variance for name, signal in moments.items()}
    lines(panels[0], variance, log=_spans_more_than(10, np.concatenate([*variance.values()])))
    lines(panels[1], {name: signal.mean for name, signal in moments.items()})
    zeros = {name: 100 * signal.zero_fraction for name, signal in moments.items()}
    lines(panels[2], zeros)
    panels[0].set_ylabel("variance")
    panels[1].set_ylabel("mean")
    panels[2].set(xlabel=UNIT_LABEL, ylabel="share of zeros (%)", ylim=(-4, 104))
    for axes in panels:
        unit_axis(axes, len(forward.units), forward.stages, names=axes is panels[0])
    legend(picture, panels[0].get_lines()[: len(moments)])
    return picture


def _spans_more_than(factor, values):
    positive = values[np.isfinite(values) & (values > 0)]
    return positive.size > 0 and positive.max() > factor * positive.min()


@as_png(formulas=True)
def sum_error(forward: Forward, title: str) -> bytes:
    """How far x_L is from x_l + sum F(x_i), equation (4), as a PNG file.

    The scale is logarithmic, but linear from 1e-8 down to 0. What float32 rounding explains
    lies in the shaded band.

    Args:
        forward: of one unit at least.
        title: above the picture.
    """
    picture = titled_figure(title, 9, 4.6)
    axes = picture.subplots()
    errors = {
        "whole sum": forward.sum_error,
        "caused by $f$": forward.sum_error_of_f,
        "caused by $h$": forward.sum_error_of_h,
    }
    lines(axes, errors)
    axes.set_yscale("symlog", linthresh=_LINEAR_BELOW, linscale=0.5)
    finite = [values[np.isfinite(values)].max(initial=0) for values in errors.values()]
    # Below 0, so that a line at 0 shows in its whole width.
    axes.set_ylim(-0.2 * _LINEAR_BELOW, max(3 * max(finite), 1e-3))
    band = axes.axhspan(0, ROUNDING, color="0.88", zorder=0, label="float32 rounding")
    axes.set(xlabel=UNIT_LABEL, ylabel=r"norm of the error / norm of $x_L$")
    unit_axis(axes, len(forward.units), forward.stages)
    legend(picture, [*axes.get_lines()[: len(errors)], band])
    return picture


@as_png(formulas=True)
def truncation(forward: Forward, title: str) -> bytes:
    """The share of each sum of which f makes 0, in %, as a PNG file.

    Args:
        forward: of one unit at least.
        title: above the picture.
    """
    picture = titled_figure(title, 9, 3.6)
    axes = picture.subplots()
    percent = 100 * forward.truncated_fraction
    lines(axes, {"truncated": percent})
    top = max(1, 1.08 * percent[np.isfinite(percent)].max(initial=0))
    axes.set(xlabel=UNIT_LABEL, ylabel="elements of $y_l$ that\n$f$ truncates to 0 (%)")
    axes.set_ylim(-0.03 * top, top)
    unit_axis(axes, len(forward.units), forward.stages)
    return picture


@as_png(formulas=True)
def shortcut_product(backward: Backward, title: str) -> bytes:
    """The product of the shortcuts' factors, equation (8), beside measured gradients.

    Args:
        backward: of one unit at least.
        title: above the picture.

    Returns:
        A PNG file.
    """
    picture = titled_figure(title, 9, 4.6)
    axes = picture.subplots()
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = backward.gradient_norm / backward.output_gradient_norm
        shortcuts = backward.shortcut_norm / backward.output_gradient_norm
    ratios = {
        "measured gradient": whole,
        "product of the factors, equation (8)": backward.shortcut_product,
        "measured, through shortcuts alone": shortcuts,
    }
    lines(axes, ratios, log=True)
    axes.set(xlabel=UNIT_LABEL, ylabel="norm at the unit's input /\nnorm at the last unit's output")
    unit_axis(axes, len(backward.units), backward.stages)
    legend(picture, axes.get_lines()[: len(ratios)])
    return picture


@as_png(formulas=True)
def factors(backward: Backward, title: str) -> bytes:
    """The values that the factor of each shortcut stands for, as a heat map in a PNG file.

    Args:
        backward: of one unit at least.
        title: above the picture.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke
    from matplotlib.ticker import FuncFormatter

    picture = titled_figure(title, 9, 4.6)
    axes = picture.subplots()
    values = [np.ravel(v)[np.isfinite(np.ravel(v))] for v in backward.factor_values]
    everything = np.concatenate([*values, backward.shortcut_factor])
    everything = everything[np.isfinite(everything)]
    low, high = (everything.min(), everything.max()) if everything.size else (0, 1)
    if high - low < 1e-3 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _FACTOR_BINS + 1)
    counts = np.stack([np.histogram(v, edges)[0] for v in values], axis=1)
    percent = 100 * counts / np.maximum(counts.sum(axis=0), 1)
    count = len(values)
    cells = axes.pcolormesh(
        np.arange(count + 1) + 0.5,
        edges,
        np.ma.masked_equal(percent, 0),
        cmap="cividis",
        # A gate's values spread over many bins, a constant fills one.
        norm=LogNorm(0.1, 100, clip=True),
    )
    percents = FuncFormatter(lambda value, _: f"{value:g}")
    picture.colorbar(cells, label="share of the unit's values (%)", format=percents)
    lines(axes, {"factor of the unit": backward.shortcut_factor})
    mean = axes.get_lines()[0]
    outline = [withStroke(linewidth=3.5, foreground="white")]
    mean.set(color=COLORS[1], linewidth=1.6, markersize=4, path_effects=outline)
    axes.grid(False)
    axes.set(xlabel=UNIT_LABEL, ylabel=r"factor $\lambda_l$ of the shortcut")
    unit_axis(axes, count, backward.stages)
    legend(picture, [mean])
    return picture


@as_png(formulas=True)
def gradients_beside(named: Sequence[tuple[str, Backward]], title: str) -> bytes:
    """The gradient and its two terms, a panel for each network, as a PNG file.

    Args:
        named: names and measurements of one network at least.
        title: above the picture.
    """
    rows = -(-len(named) // _MOST_COLUMNS)
    columns = -(-len(named) // rows)
    picture = titled_figure(title, max(7, 4.4 * columns), 3.3 * rows + 0.6)
    panels = picture.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes, (name, backward) in zip(panels, named, strict=False):
        series = gradient_lines(backward)
        lines(axes, series, log=True)
        heading = textwrap.wrap(name, _TITLE_LETTERS)
        if not np.any(backward.shortcut_norm):
            heading.append("(nothing through shortcuts alone)")
        # The stages' names stand in between.
        axes.set_title(plain("\n".join(heading)), fontsize="medium", pad=18)
        axes.set_xlabel(UNIT_LABEL)
        unit_axis(axes, len(backward.units), backward.stages)
    for axes in panels[len(named) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel(GRADIENT_LABEL)
    everything = [gradient_lines(backward).values() for _, backward in named]
    fit_log(panels[0], np.concatenate([norms for values in everything for norms in values]))
    handles = panels[0].get_lines()[: len(series)]
    for handle, label in zip(handles, series, strict=True):
        # The number of zeros differs between the panels.
        handle.set_label(label)
    legend(picture, handles)
    return picture
