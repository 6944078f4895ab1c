"""The gradient in each unit as figures: equations (5), (6) and (8)."""

import textwrap
from collections.abc import Sequence

import numpy as np

from keras_preact.analysis import Backward
from keras_preact.studies.formulas import EQUATIONS, with_formulas
from keras_preact.studies.page import Figure
from keras_preact.studies.wording import are_alike, between, number
from keras_preact.support.page import Html
from keras_preact.support.plotting import (
    HEAT,
    UNIT_LABEL,
    VERMILION,
    as_png,
    fit_log,
    legend,
    lines,
    plain,
    titled_figure,
    unit_axis,
)
from keras_preact.training.reporting.propagation_figure import (
    GRADIENT_LABEL,
    gradient,
    gradient_lines,
)

# An odd number: values that are all equal lie in the middle of one.
_FACTOR_BINS = 51
_MOST_COLUMNS = 3
_TITLE_LETTERS = 45


def figures(backward: Backward, label: str) -> list[Figure]:
    """The figures of a network's gradient; level lines become a sentence."""
    is_level = are_alike(_factor_values(backward))
    return [
        Figure(
            "gradient",
            "The gradient and its two terms",
            gradient_caption(backward),
            gradient(backward, f"Gradient: {label}"),
            "Norm of the gradient, its shortcut term and its residual term in each unit, and the "
            "cosine between the terms",
            [EQUATIONS[5]],
        ),
        Figure(
            "shortcut_product",
            "The product of the shortcuts' factors",
            shortcut_product_caption(backward),
            draw_shortcut_product(backward, f"Equation (8): {label}"),
            "Product of the shortcut factors beside the measured shortcut term and gradient",
            [EQUATIONS[8]],
        ),
        Figure(
            "factors",
            "The shortcuts' factors",
            factors_caption(backward),
            None if is_level else draw_factors(backward, f"Shortcut factors: {label}"),
            "Histogram of the factor of each unit's shortcut",
            [EQUATIONS[6]],
        ),
    ]


def beside(named: Sequence[tuple[str, Backward]], remark: str = "") -> Figure:
    """The gradients of several networks beside each other; a remark ends the caption."""
    return Figure(
        "gradients",
        "Gradients side by side",
        beside_caption(named, remark),
        draw_beside(named, "Gradients side by side"),
        "Norm of the gradient and of its two terms in each unit, a panel for each network",
        [EQUATIONS[5]],
    )


def gradient_caption(backward: Backward) -> Html:
    """Tells how far the gradient and its shortcut term change, where, and if the terms agree."""
    whole, through = _at_first_unit(backward)
    text = (
        f"At the first unit the norm of the gradient is {number(whole)} times that at the end of "
        "the last one."
    )
    if not np.any(backward.shortcut_norm):
        return with_formulas(
            f"{text} None of it comes through shortcuts alone: the first term is 0 in every unit."
        )
    at_stages, within = _changes(backward, backward.shortcut_norm)
    others = "" if within is None else f", and a factor of {number(within)} over all others"
    return with_formulas(
        f"{text} Its first term, through shortcuts alone, is {number(through)} times that: a "
        f"factor of {number(at_stages)} over the units that begin a stage, whose shortcut may be "
        f"a projection or start behind an activation{others}. The cosine between the two terms "
        f"is {between(backward.units, backward.cosine)}; below 0 they cancel in part."
    )


def shortcut_product_caption(backward: Backward) -> Html:
    """Compares the product of the factors with the gradient through shortcuts alone."""
    whole, through = _at_first_unit(backward)
    product = backward.shortcut_product[0]
    if not np.any(backward.shortcut_norm) and not np.any(backward.shortcut_product):
        return with_formulas(
            "There are no shortcuts: the product is 0, and nothing comes through shortcuts alone. "
            f"The whole gradient is {number(whole)} times that at the end of the last unit."
        )
    _, measured = _changes(backward, backward.shortcut_norm)
    _, expected = _changes(backward, backward.shortcut_product, end=1)
    text = (
        f"The product of all factors is {number(product)}. Through shortcuts alone, "
        f"{number(through)} times the gradient at the end of the last unit arrives at the first; "
        f"the whole gradient there is {number(whole)} times that at the end."
    )
    if expected is not None:
        text += (
            f" Over the units that do not begin a stage the product is {number(expected)}, and "
            f"the measured factor {number(measured)}."
        )
    return with_formulas(
        f"{text} Projections, $f$ and the derivative of a gate are no part of the product."
    )


def factors_caption(backward: Backward) -> Html:
    """Tells the range of the factors."""
    values = _factor_values(backward)
    if are_alike(values):
        meanings = {
            1: ": a shortcut passes the signal on unchanged, projections aside",
            0: ": there are no shortcuts",
        }
        meaning = meanings.get(round(values[0], 6), ", projections aside")
        return with_formulas(
            rf"The factor $\lambda_l$ is {number(values[0])} in every unit{meaning}."
        )
    finite = values[np.isfinite(values)]
    span = (
        f"from {number(finite.min())} to {number(finite.max())}" if finite.size else "to infinity"
    )
    of_units = between(backward.units, backward.shortcut_factor)
    return with_formulas(
        rf"The factor $\lambda_l$ of a unit is {of_units}. "
        f"The values that it stands for go {span}: the constant of a scaling, $1-g$ of each "
        "pixel and channel of a gate, the share that dropout keeps, or the singular values of a "
        "convolution."
    )


def beside_caption(named: Sequence[tuple[str, Backward]], remark: str = "") -> Html:
    """Tells the range of the gradients at the first unit."""
    names = [name for name, _ in named]
    whole, through = np.transpose([_at_first_unit(backward) for _, backward in named])
    text = (
        f"At the first unit the gradient is {between(names, whole)} times that at the end of the "
        f"last one. Through shortcuts alone it is {between(names, through)} times."
    )
    return with_formulas(f"{text} {remark}".rstrip())


def _at_first_unit(backward):
    """The gradient and its shortcut term at the first unit, over the gradient at the end."""
    with np.errstate(divide="ignore", invalid="ignore"):
        norms = np.array([backward.gradient_norm[0], backward.shortcut_norm[0]])
        return norms / backward.output_gradient_norm


def _changes(backward, values, end=None):
    """The factors by which values change from the end of the last unit to the first one.

    Returns:
        The product over the units that begin a stage, and that over all others, or None where
        there are no others.
    """
    end = backward.output_gradient_norm if end is None else end
    begins = np.diff(backward.stages, prepend=0) > 0
    with np.errstate(all="ignore"):
        steps = values / np.append(values[1:], end)
        return np.prod(steps[begins]), None if begins.all() else np.prod(steps[~begins])


def _factor_values(backward):
    return np.concatenate([*map(np.ravel, backward.factor_values), backward.shortcut_factor])


@as_png(formulas=True)
def draw_shortcut_product(backward: Backward, title: str) -> bytes:
    """Draws the product of the shortcuts' factors, equation (8), beside measured gradients."""
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
def draw_factors(backward: Backward, title: str) -> bytes:
    """Draws the values that each shortcut's factor stands for, as a heat map in a PNG file."""
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
        cmap=HEAT,
        # A gate's values spread over many bins, a constant fills one.
        norm=LogNorm(0.1, 100, clip=True),
    )
    percents = FuncFormatter(lambda value, _: f"{value:g}")
    picture.colorbar(cells, label="values of the unit (%)", format=percents)
    lines(axes, {"factor of the unit": backward.shortcut_factor})
    mean = axes.get_lines()[0]
    outline = [withStroke(linewidth=3.5, foreground="white")]
    mean.set(color=VERMILION, linewidth=1.6, markersize=4, path_effects=outline)
    axes.grid(False)
    axes.set(xlabel=UNIT_LABEL, ylabel=r"factor $\lambda_l$ of the shortcut")
    unit_axis(axes, count, backward.stages)
    legend(picture, [mean])
    return picture


@as_png(formulas=True)
def draw_beside(named: Sequence[tuple[str, Backward]], title: str) -> bytes:
    """Draws the gradient and its two terms, a panel for each network, as a PNG file."""
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
