"""The study of new networks of several depths: their gradients before training."""

from collections.abc import Sequence

import numpy as np

from keras_preact.analysis import Initialisation, initialisation
from keras_preact.data import Dataset
from keras_preact.studies.config import AnalysisConfig
from keras_preact.studies.formulas import EQUATIONS, Html, with_formulas
from keras_preact.studies.networks import describe, kinds, new
from keras_preact.studies.output import Report, csv_bytes
from keras_preact.studies.page import Figure, Table
from keras_preact.studies.wording import between
from keras_preact.support.console import say
from keras_preact.support.plotting import (
    UNIT_LABEL,
    as_png,
    fit_log,
    legend,
    marked,
    plain,
    positive,
    style,
    titled_figure,
    unit_axis,
)
from keras_preact.training.config import TrainConfig

_PANEL_INCHES = 4.8
_LINE_INCHES = 0.25
_NORM_LABEL = "norm of the gradient at the unit's input /\nnorm at the last unit's output"
_DASHES = {"linestyle": "--", "linewidth": 1}


def study(
    train_configs: Sequence[TrainConfig], data: Sequence[Dataset], config: AnalysisConfig
) -> Report:
    """Measures several draws of each network.

    Args:
        train_configs: of one network or more.
        data: of each.
        config: of the analysis.
    """
    results, measured_on = [], {}
    for train_config, of_it, kind in zip(train_configs, data, kinds(train_configs), strict=True):
        say(f"Measuring {describe(train_config)}, {config.draws} times")
        result, images = _measure(train_config, of_it, config, kind)
        results.append(result)
        measured_on[images] = None
    names = "; ".join(map(describe, train_configs))
    rows = [(result.label, result.depth, *_ends(result)) for result in results]
    return Report(
        title=f"Gradients before training: {names}",
        facts={
            "Measured on": "; ".join(measured_on),
            "Draws of the weights": f"{config.draws}, from seed {config.seed} on",
        },
        figures=[figure(results).of(names)],
        tables=[
            Table(
                "At the first unit",
                (
                    *("network", "depth", "gradient", "lowest", "highest"),
                    *("through shortcuts", "equation (8)"),
                ),
                rows,
                "Norm of the gradient at the input of the first unit over that at the output of "
                "the last one: median, lowest and highest draw; of the part that came through "
                "shortcuts alone, the median; and the product of the shortcuts' factors.",
            )
        ],
        csv=csv_bytes(map(_part, results)),
        summary=[
            f"  {name}, depth {depth}: gradient at the first unit {median} times that at the last, "
            f"through shortcuts alone {through} times, by equation (8) {product}"
            for name, depth, median, _, _, through, product in rows
        ],
    )


def _measure(train_config, data, config, label):
    """The gradients of a network, and a description of the images."""

    def network(draw):
        return new(train_config.updated(seed=config.seed + draw), data)

    first = network(0)
    images, labels = first.training_images(config.images, config.seed)
    result = initialisation(
        lambda draw: (network(draw) if draw else first).model,
        images,
        labels,
        label=label,
        depth=train_config.depth,
        draws=config.draws,
    )
    return result, first.describe_images(len(images))


def _ends(result: Initialisation) -> list[str]:
    first = result.gradient_norm[:, 0]
    through = np.median(result.shortcut_norm[:, 0])
    product = result.shortcut_product[0]
    figures = np.median(first), first.min(), first.max(), through, product
    return [f"{figure:.3g}" for figure in figures]


def _part(result):
    columns = {"shortcut_product": result.shortcut_product}
    for name in ("gradient_norm", "shortcut_norm"):
        norm = getattr(result, name)
        columns |= {
            f"relative_{name}_{word}": function(norm, axis=0)
            for word, function in (("median", np.median), ("lowest", np.min), ("highest", np.max))
        }
    return {"network": result.label, "depth": result.depth}, result.units, columns


def figure(results: Sequence[Initialisation]) -> Figure:
    """The gradients as a figure."""
    return Figure(
        "initialisation",
        "The gradient before training",
        caption(results),
        draw(results, "The gradient before training"),
        "Gradient in each unit of untrained networks, with the closed form",
        [EQUATIONS[5], EQUATIONS[8]],
    )


def caption(results: Sequence[Initialisation]) -> Html:
    """Tells the range of the gradients at the first unit, beside equation (8)."""
    names = [f"{result.label}, {result.depth} layers" for result in results]
    whole, through = (
        between(names, [np.median(getattr(result, norm)[:, 0]) for result in results])
        for norm in ("gradient_norm", "shortcut_norm")
    )
    product = between(names, [result.shortcut_product[0] for result in results])
    return with_formulas(
        "Each line is the median over the draws of the weights, each band goes from the lowest "
        f"draw to the highest. At the first unit the gradient is {whole} times that at the end of "
        f"the last one; through shortcuts alone it is {through} times. The product of the "
        f"shortcuts' factors (dashed) is {product}."
    )


@as_png(formulas=True)
def draw(results: Sequence[Initialisation], title: str) -> bytes:
    """Draws the gradients of untrained networks by unit and by depth, as a PNG file.

    Norms are relative to that at the output of the last unit. The first panel is of the whole
    gradient, the second of what came through shortcuts alone, with equation (8) dashed; both
    show the deepest network of each label. Where labels have several depths, a third panel
    shows the first unit of all of them. A line is the median over the draws of the weights, a
    band goes from the lowest to the highest draw.

    Args:
        results: one at least. Those of one label belong together.
        title: above the picture.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = _by_label(results)
    several = any(len(group) > 1 for group in groups.values())
    panels = 3 if several else 2
    height = 4.2 + _LINE_INCHES * len(groups)
    picture = titled_figure(title, max(_PANEL_INCHES * panels, 9), height)
    whole, through, *by_depth = picture.subplots(1, panels)
    deepest = [group[-1] for group in groups.values()]
    handles = _draw_units(whole, deepest, "gradient_norm")
    _draw_units(through, deepest, "shortcut_norm")
    for place, result in enumerate(deepest):
        product = positive(result.shortcut_product)
        through.plot(_numbers(result), product, color=style(place)["color"], **_DASHES)
    shown = [np.ravel(result.shortcut_norm) for result in deepest]
    fit_log(through, np.concatenate([*shown, *(result.shortcut_product for result in deepest)]))
    whole.set_title("whole gradient", fontsize="medium")
    through.set_title("through shortcuts alone", fontsize="medium")
    for axes in by_depth:
        _draw_depths(axes, groups)
    handles.append(Line2D([], [], color="0.3", label="product of factors, equation (8)", **_DASHES))
    handles.append(Patch(color="0.85", label="lowest to highest draw"))
    legend(picture, handles)
    return picture


def _by_label(results):
    """The results of each label, by depth."""
    groups = {}
    for result in sorted(results, key=lambda result: result.depth):
        groups.setdefault(result.label, []).append(result)
    # In the order given, not that of the depths.
    return {result.label: groups[result.label] for result in results}


def _numbers(result):
    return np.arange(1, len(result.units) + 1)


def _draw_units(axes, results, name):
    """Draws the line and the band of each result and returns the lines, for the legend."""
    lines = []
    for place, result in enumerate(results):
        norms, look = getattr(result, name), {**style(place), "markersize": 5}
        low, high = norms.min(axis=0), norms.max(axis=0)
        # 0 has no place on a log scale: the band then goes down to the edge of the picture.
        low = np.where(low == 0, np.finfo("float64").tiny, positive(low))
        band = {"color": look["color"], "alpha": 0.2, "linewidth": 0}
        axes.fill_between(_numbers(result), low, positive(high), **band)
        median = positive(np.median(norms, axis=0))
        label = f"{plain(result.label)}, {result.depth} layers"
        lines += axes.plot(
            _numbers(result), median, label=label, markevery=marked(median, place), **look
        )
    fit_log(axes, np.concatenate([np.ravel(getattr(result, name)) for result in results]))
    unit_axis(axes, max(len(result.units) for result in results))
    axes.set(xlabel=UNIT_LABEL, ylabel=_NORM_LABEL)
    axes.grid(alpha=0.3)
    return lines


def _draw_depths(axes, groups):
    shown = []
    for place, group in enumerate(groups.values()):
        depths = [result.depth for result in group]
        norms = [np.median(result.gradient_norm[:, 0]) for result in group]
        products = [result.shortcut_product[0] for result in group]
        axes.plot(depths, positive(norms), **style(place), markersize=5)
        axes.plot(depths, positive(products), color=style(place)["color"], **_DASHES)
        shown += [*norms, *products]
    fit_log(axes, np.array(shown))
    axes.set_title("at the first unit, whole gradient", fontsize="medium")
    axes.set(xlabel="depth (weighted layers)", ylabel=_NORM_LABEL)
    axes.grid(alpha=0.3)
