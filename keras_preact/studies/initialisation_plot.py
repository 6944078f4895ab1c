"""The gradients of untrained networks as a picture, as a PNG file in memory."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis.results import Initialisation
from keras_preact.support.plotting import (
    COLORS,
    MARKERS,
    UNIT_LABEL,
    as_png,
    fit_log,
    legend,
    marked,
    plain,
    positive,
    titled_figure,
    unit_axis,
)

_PANEL_INCHES = 4.8
_LINE_INCHES = 0.25
_NORM_LABEL = "norm of the gradient at the unit's input /\nnorm at the last unit's output"
_DASHES = {"linestyle": "--", "linewidth": 1}


@as_png(formulas=True)
def initialisation(studies: Sequence[Initialisation], title: str) -> bytes:
    """Gradients of untrained networks by unit and by depth, as a PNG file.

    Norms are relative to that at the output of the last unit. The first panel is of the whole
    gradient, the second of what came through shortcuts alone, with equation (8) dashed; both
    show the deepest network of each label. Where labels have several depths, a third panel
    shows the first unit of all of them. A line is the median over the draws of the weights, a
    band goes from the lowest to the highest draw.

    Args:
        studies: one at least. Those of one label belong together.
        title: above the picture.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = _by_label(studies)
    several = any(len(group) > 1 for group in groups.values())
    panels = 3 if several else 2
    height = 4.2 + _LINE_INCHES * len(groups)
    picture = titled_figure(title, max(_PANEL_INCHES * panels, 9), height)
    whole, through, *by_depth = picture.subplots(1, panels)
    deepest = [group[-1] for group in groups.values()]
    handles = _draw_units(whole, deepest, "gradient_norm")
    _draw_units(through, deepest, "shortcut_norm")
    for place, study in enumerate(deepest):
        product = positive(study.shortcut_product)
        through.plot(_numbers(study), product, color=_style(place)["color"], **_DASHES)
    shown = [np.ravel(study.shortcut_norm) for study in deepest]
    fit_log(through, np.concatenate([*shown, *(study.shortcut_product for study in deepest)]))
    whole.set_title("whole gradient", fontsize="medium")
    through.set_title("through shortcuts alone", fontsize="medium")
    for axes in by_depth:
        _draw_depths(axes, groups)
    handles.append(Line2D([], [], color="0.3", label="product of factors, equation (8)", **_DASHES))
    handles.append(Patch(color="0.85", label="lowest to highest draw"))
    legend(picture, handles)
    return picture


def _by_label(studies):
    """The studies of each label, by depth."""
    groups = {}
    for study in sorted(studies, key=lambda study: study.depth):
        groups.setdefault(study.label, []).append(study)
    # In the order given, not that of the depths.
    return {study.label: groups[study.label] for study in studies}


def _style(place):
    marker = MARKERS[place % len(MARKERS)]
    return {"color": COLORS[place % len(COLORS)], "marker": marker, "markersize": 5}


def _numbers(study):
    return np.arange(1, len(study.units) + 1)


def _draw_units(axes, studies, name):
    """Draws the line and the band of each study and returns the lines, for the legend."""
    lines = []
    for place, study in enumerate(studies):
        norms, style = getattr(study, name), _style(place)
        low, high = norms.min(axis=0), norms.max(axis=0)
        # 0 has no place on a log scale: the band then goes down to the edge of the picture.
        low = np.where(low == 0, np.finfo("float64").tiny, positive(low))
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        axes.fill_between(_numbers(study), low, positive(high), **band)
        median = positive(np.median(norms, axis=0))
        label = f"{plain(study.label)}, {study.depth} layers"
        lines += axes.plot(
            _numbers(study), median, label=label, markevery=marked(median, place), **style
        )
    fit_log(axes, np.concatenate([np.ravel(getattr(study, name)) for study in studies]))
    unit_axis(axes, max(len(study.units) for study in studies))
    axes.set(xlabel=UNIT_LABEL, ylabel=_NORM_LABEL)
    axes.grid(alpha=0.3)
    return lines


def _draw_depths(axes, groups):
    shown = []
    for place, group in enumerate(groups.values()):
        depths = [study.depth for study in group]
        norms = [np.median(study.gradient_norm[:, 0]) for study in group]
        products = [study.shortcut_product[0] for study in group]
        axes.plot(depths, positive(norms), **_style(place))
        axes.plot(depths, positive(products), color=_style(place)["color"], **_DASHES)
        shown += [*norms, *products]
    fit_log(axes, np.array(shown))
    axes.set_title("at the first unit, whole gradient", fontsize="medium")
    axes.set(xlabel="depth (weighted layers)", ylabel=_NORM_LABEL)
    axes.grid(alpha=0.3)
