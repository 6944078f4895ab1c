"""The pictures of a report: images per class, sampling, and sizes."""

import numpy as np

from keras_preact.data.summary import SPLITS
from keras_preact.support.plotting import BLUE, GREEN, ORANGE, as_png, figure
from keras_preact.support.text import printable

# Classes that have a bar with its name; of more, a curve shows the counts in order.
MOST_BARS = 40
_MOST_LETTERS = 24
_BINS = 40
_COLORS = {"train": ORANGE, "eval": BLUE, "test": GREEN}
# Counts that differ by more are drawn on a logarithmic axis.
_LINEAR = 50


@as_png
def classes(report) -> bytes:
    """Draws the images of each class by split, as a PNG: bars, or curves of many classes."""
    names = report.dataset.info.class_names
    order = np.argsort(-report.counts["train"], kind="stable")
    bars = len(names) <= MOST_BARS
    picture = figure(figsize=(8, 1.2 + 0.22 * len(names) if bars else 4))
    axes = picture.subplots()
    if bars:
        _bars(axes, report, order)
    else:
        _curves(axes, report, order)
    axes.grid(alpha=0.3)
    picture.legend(loc="outside upper right", ncols=len(SPLITS), fontsize="small")
    return picture


def _bars(axes, report, order):
    begun = np.zeros(len(order))
    rows = np.arange(len(order))
    for split, counts in report.counts.items():
        axes.barh(rows, counts[order], left=begun, color=_COLORS[split], label=SPLITS[split])
        begun += counts[order]
    names = [printable(report.dataset.info.class_names[n])[:_MOST_LETTERS] for n in order]
    axes.set_yticks(rows, names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="images")


def _curves(axes, report, order):
    ranks = np.arange(1, len(order) + 1)
    for split, counts in report.counts.items():
        style = {"color": _COLORS[split], "label": SPLITS[split]}
        if split == "train":
            axes.fill_between(ranks, counts[order], step="mid", alpha=0.3, color=_COLORS[split])
        axes.step(ranks, counts[order], where="mid", linewidth=1, **style)
    names, train = report.dataset.info.class_names, report.counts["train"]
    for place, align in ((0, "left"), (-1, "right")):
        name = printable(names[order[place]])[:_MOST_LETTERS]
        axes.annotate(
            f"{name}: {train[order[place]]:,}",
            (ranks[place], train[order[place]]),
            (0, 6),
            textcoords="offset points",
            ha=align,
            fontsize="small",
        )
    highest = max(counts.max() for counts in report.counts.values())
    axes.set_ylim(0, 1.15 * highest)
    if train.max() > _LINEAR * max(train.min(), 1):
        axes.set_yscale("symlog", linthresh=1)
        # Room for the name of the largest class.
        axes.set_ylim(0, 3 * highest)
    axes.set(xlabel="classes by their training images, largest first", ylabel="images")


@as_png
def samplings(report) -> bytes:
    """Draws the share of training samples that each class has with each sampling, as a PNG."""
    order = np.argsort(-report.counts["train"], kind="stable")
    ranks = np.arange(1, len(order) + 1)
    picture = figure(figsize=(8, 3))
    axes = picture.subplots()
    lines = (("natural", "-", ORANGE), ("sqrt", "--", BLUE), ("balanced", ":", GREEN))
    for sampling, line, color in lines:
        marker = "o" if len(ranks) <= MOST_BARS else None
        shares = 100 * report.frequencies[sampling][order]
        label = f"{sampling}, as chosen" if sampling == report.dataset.sampling else sampling
        axes.plot(ranks, shares, line, color=color, marker=marker, markersize=4, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(
        xlabel="classes by their training images, largest first",
        ylabel="share of samples (%)",
        ylim=(0, None),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return picture


@as_png
def sizes(report) -> bytes:
    """Draws widths, heights and aspect ratios of the images, as a PNG."""
    picture = figure(figsize=(9, 2.8))
    widths, heights = report.sizes.widths, report.sizes.heights
    panels = picture.subplots(1, 3)
    wanted = report.dataset.info.image_shape
    for axes, values, name, side in zip(
        panels,
        (widths, heights, widths / heights),
        ("width (pixels)", "height (pixels)", "width / height"),
        (wanted[1], wanted[0], None),
        strict=True,
    ):
        axes.hist(values, bins=_edges(values), color=BLUE)
        if side and report.dataset.info.resize_ratio != 1.0:
            axes.axvline(side, color=ORANGE, label=f"image_size {side}")
            axes.legend(fontsize="small")
        axes.set(xlabel=name)
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="images")
    return picture


def _edges(values):
    """Borders of bins, also where all values are one."""
    low, high = float(np.min(values)), float(np.max(values))
    spare = 0.05 * (high - low) or 0.05 * max(abs(high), 1)
    return np.linspace(low - spare, high + spare, _BINS + 1)
