"""The signals of each unit as figures: equations (1), (2) and (4)."""

import numpy as np

from keras_preact.analysis import Forward
from keras_preact.studies.formulas import EQUATIONS, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import are_alike, between, highest, number, percent
from keras_preact.support.page import Html
from keras_preact.support.plotting import (
    UNIT_LABEL,
    as_png,
    legend,
    lines,
    titled_figure,
    unit_axis,
)

# Rounding of a sum of many float32 numbers, relative to the sum.
ROUNDING = 1e-6
# The scale of `sum_error` is linear below, which leaves a place for 0.
_LINEAR_BELOW = 1e-8


def figures(forward: Forward, label: str) -> list[Figure]:
    """The figures of a network's signals; level lines become a sentence."""
    holds, is_level = _holds(forward), are_alike(forward.truncated_fraction)
    return [
        Figure(
            "signals",
            "Signals",
            signals_caption(forward),
            draw_signals(forward, f"Signals: {label}"),
            "Variance, mean and zeros of the five signals of each unit",
            [EQUATIONS[1], EQUATIONS[2]],
        ),
        Figure(
            "sum_error",
            "The forward sum",
            sum_error_caption(forward),
            None if holds else draw_sum_error(forward, f"Equation (4): {label}"),
            "Deviation from equation (4) in each unit, and its parts due to f and to h",
            [EQUATIONS[4]],
        ),
        Figure(
            "truncation",
            "Truncation by f",
            truncation_caption(forward),
            None if is_level else draw_truncation(forward, f"Truncation: {label}"),
            "Percentage of the sum in each unit that f zeroes",
            [EQUATIONS[2]],
        ),
    ]


def signals_caption(forward: Forward) -> Html:
    """Tells how the variance of x grows, and the percentage of zeros in x."""
    text = (
        f"The variance of $x_l$ is {number(forward.variance[0])} in the first unit and "
        f"{number(forward.output.variance[-1])} behind the last one."
    )
    stages, first = np.unique(forward.stages, return_index=True)
    start = forward.variance[first]
    end = forward.output.variance[[*(first[1:] - 1), -1]]
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.abs(np.log(end / start))
    if len(stages) > 1 and np.isfinite(growth).any():
        most = np.nanargmax(np.where(np.isfinite(growth), growth, np.nan))
        text += (
            f" Of all stages it changes most in stage {stages[most]}: from {number(start[most])} "
            f"to {number(end[most])}."
        )
    zeros = between(forward.units, forward.zero_fraction, percent)
    return with_formulas(f"{text} Zeros make up {zeros} of $x_l$.")


def sum_error_caption(forward: Forward) -> Html:
    """Tells whether equation (4) holds, and if f or h breaks it."""
    end = "The sum goes to the end of a stage, and $x_L$ is what leaves it."
    if _holds(forward):
        return with_formulas(
            f"Equation (4) holds: its two sides differ by {number(np.max(forward.sum_error))} of "
            f"the norm of $x_L$ at most, which is float32 rounding. {end}"
        )
    error, of_f, of_h = (
        highest(forward.units, errors)
        for errors in (forward.sum_error, forward.sum_error_of_f, forward.sum_error_of_h)
    )
    return with_formulas(
        "Equation (4) does not hold. The largest difference of its two sides, over the norm of "
        f"$x_L$, is {error}; the part due to $f$ is {of_f} at most, the part due to $h$ is {of_h}. "
        f"{end} Rounding explains only what lies in the grey band."
    )


def truncation_caption(forward: Forward) -> Html:
    """Tells the percentage of each sum that f zeroes."""
    zeroed = forward.truncated_fraction
    if not np.any(zeroed):
        return with_formulas("$f$ zeroes no element of any sum $y_l$: nothing is truncated.")
    span = between(forward.units, zeroed, percent)
    if are_alike(zeroed):
        return with_formulas(f"$f$ zeroes {span} of the sum $y_l$ in every unit.")
    return with_formulas(
        f"$f$ zeroes {span} of the elements of the sum $y_l$, {percent(np.mean(zeroed))} in the "
        "mean over the units. A zeroed element passes nothing on to the next unit."
    )


def _holds(forward):
    """Whether no unit deviates from equation (4) by more than rounding."""
    errors = forward.sum_error, forward.sum_error_of_f, forward.sum_error_of_h
    # NaN and infinity compare as False.
    return bool(np.all(np.stack(errors) <= ROUNDING))


@as_png(formulas=True)
def draw_signals(forward: Forward, title: str) -> bytes:
    """Draws variance, mean and zeros of the five signals of each unit, as a PNG file.

    The scale of the variance is logarithmic if it spans more than a factor of 10.
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
    panels[2].set(xlabel=UNIT_LABEL, ylabel="zeros (%)", ylim=(-4, 104))
    for axes in panels:
        unit_axis(axes, len(forward.units), forward.stages, names=axes is panels[0])
    legend(picture, panels[0].get_lines()[: len(moments)])
    return picture


def _spans_more_than(factor, values):
    positive = values[np.isfinite(values) & (values > 0)]
    return positive.size > 0 and positive.max() > factor * positive.min()


@as_png(formulas=True)
def draw_sum_error(forward: Forward, title: str) -> bytes:
    """Draws how far x_L is from x_l + sum F(x_i), equation (4), as a PNG file.

    The scale is logarithmic, but linear from 1e-8 down to 0. The shaded band is float32
    rounding.
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
def draw_truncation(forward: Forward, title: str) -> bytes:
    """Draws the percentage of each sum that f zeroes, as a PNG file."""
    picture = titled_figure(title, 9, 3.6)
    axes = picture.subplots()
    percent = 100 * forward.truncated_fraction
    lines(axes, {"truncated": percent})
    top = max(1, 1.08 * percent[np.isfinite(percent)].max(initial=0))
    axes.set(xlabel=UNIT_LABEL, ylabel="elements of $y_l$\nthat $f$ zeroes (%)")
    axes.set_ylim(-0.03 * top, top)
    unit_axis(axes, len(forward.units), forward.stages)
    return picture
