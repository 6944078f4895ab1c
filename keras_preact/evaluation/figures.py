"""The pictures of an evaluation, as PNG files."""

from collections.abc import Sequence

import numpy as np

from keras_preact.evaluation.calibration import Reliability
from keras_preact.support.plotting import BLUE, GREY, HEAT, ORANGE, as_png, figure
from keras_preact.support.text import printable

# Up to these numbers of classes a cell holds its number, and each class its name.
_MOST_NUMBERS, _MOST_NAMES = 15, 60
# Beyond, a cell would be too small to be seen, and is drawn as a dot.
_MOST_CELLS = 120
_MOST_TICKS = 25
_MOST_LETTERS = 24
_MOST_BARS = 40


@as_png
def reliability(before: Reliability, after: Reliability | None, what: str = "accuracy"):
    """Draws reliability diagrams: the accuracy of each bin of confidence, and how full it is.

    Args:
        before: of the model as it is.
        after: with the fitted temperature; None to leave it out.
        what: is compared with the confidence.
    """
    panels = {"as it is": before} | ({"with temperature": after} if after else {})
    picture = figure(figsize=(4.6 * len(panels), 5))
    rows = picture.subplots(
        2, len(panels), sharex=True, squeeze=False, gridspec_kw={"height_ratios": [3, 1]}
    )
    for column, (title, bins) in enumerate(panels.items()):
        axes, below = rows[0][column], rows[1][column]
        left, widths = bins.edges[:-1], np.diff(bins.edges)
        bar = {"align": "edge", "linewidth": 0.5, "edgecolor": "white"}
        filled = bins.counts > 0
        gap = bins.confidence - bins.accuracy
        axes.bar(left, np.nan_to_num(bins.accuracy), widths, color=BLUE, label=what, **bar)
        axes.bar(
            left[filled],
            gap[filled],
            widths[filled],
            bottom=bins.accuracy[filled],
            color=ORANGE,
            alpha=0.5,
            label="gap to the mean confidence",
            **bar,
        )
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), ylabel=what)
        axes.set_title(f"{title}: calibration error {bins.expected_error:.2%}", fontsize="medium")
        axes.legend(fontsize="small", loc="upper left")
        below.bar(left, bins.counts / bins.counts.sum(), widths, color=GREY, **bar)
        below.set(xlabel="confidence", ylabel="fraction")
        axes.grid(alpha=0.3)
    return picture


@as_png
def confusion(matrix: np.ndarray, class_names: Sequence[str]):
    """Draws a confusion matrix of any number of classes, each row as fractions of its images.

    Few classes have numbers in their cells. Many have a dot for each cell that is not empty, as
    cells would be smaller than a pixel can show.

    Args:
        matrix: int (classes, classes): images by true class (row) and predicted class.
        class_names: by label.
    """
    classes = len(matrix)
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(0.45 * classes + 2.5, 5, 10))
    picture = figure(figsize=(side + 1, side))
    axes = picture.subplots()
    # Rare confusions are what the picture is for.
    scale = {"cmap": HEAT, "norm": _square_root()}
    if classes <= _MOST_CELLS:
        image = axes.imshow(fractions, **scale)
    else:
        rows, columns = np.nonzero(matrix)
        values = fractions[rows, columns]
        order = np.argsort(values, kind="stable")
        rows, columns, values = rows[order], columns[order], values[order]
        axes.set_facecolor("0.97")
        # The diagonal is long enough to be seen.
        sizes = np.where(rows == columns, 4, 1.5 + 60 * values)
        edge = {"edgecolors": "0.2", "linewidths": np.where(sizes > 6, 0.4, 0)}
        image = axes.scatter(columns, rows, s=sizes, c=values, **edge, **scale)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
        axes.grid(alpha=0.3, linewidth=0.4)
    if classes <= _MOST_NUMBERS:
        for row, column in zip(*np.nonzero(matrix), strict=True):
            color = "black" if fractions[row, column] > 0.3 else "white"
            text = f"{matrix[row, column]:,}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    every = range(classes)
    ticks = every if classes <= _MOST_NAMES else np.linspace(0, classes - 1, _MOST_TICKS, dtype=int)
    names = [_short(class_names[tick]) for tick in ticks]
    size = 8 if classes <= 30 else 6
    axes.set_xticks(ticks, names, rotation=90, fontsize=size)
    axes.set_yticks(ticks, names, fontsize=size)
    axes.set(xlabel="predicted", ylabel="true class")
    bar = picture.colorbar(image, ax=axes, shrink=0.7, label="fraction of the true class")
    bar.set_ticks([0, 0.01, 0.05, 0.2, 0.5, 1])
    return picture


@as_png
def average_precision(values: np.ndarray, class_names: Sequence[str]):
    """Draws the average precision of each class, the best and worst ones of many.

    Args:
        values: float (classes,); NaN for a class without images, which is left out.
        class_names: by column.
    """
    order = [place for place in np.argsort(-values) if np.isfinite(values[place])]
    half = _MOST_BARS // 2
    shown = order if len(order) <= _MOST_BARS else [*order[:half], *order[-half:]]
    picture = figure(figsize=(7, 1 + 0.22 * max(len(shown), 4)))
    axes = picture.subplots()
    places = np.arange(len(shown))
    axes.barh(places, values[shown], color=BLUE)
    axes.set_yticks(places, [_short(class_names[place]) for place in shown], fontsize=8)
    axes.set(xlim=(0, 1), xlabel="average precision", ylim=(len(shown) - 0.4, -0.6))
    if len(shown) < len(order):
        axes.axhline(half - 0.5, color=GREY, linestyle="--", linewidth=1)
    axes.grid(alpha=0.3, axis="x")
    return picture


def overlaid(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns an image with a map over it, uint8 (height, width, 3).

    Args:
        image: uint8 (height, width, 1 or 3).
        weights: of a map, at least 0 (height, width); its largest is shown brightest.
    """
    import matplotlib

    scaled = weights / max(float(weights.max()), np.finfo(np.float32).tiny)
    colors = 255 * matplotlib.colormaps["inferno"](scaled)[..., :3]
    # The image stays visible below.
    share = 0.65 * scaled[..., None]
    grey = image.mean(axis=-1, keepdims=True)
    return np.clip(grey * (1 - share) + colors * share, 0, 255).round().astype(np.uint8)


def _square_root():
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.4, vmin=0, vmax=1)


def _short(name):
    safe = printable(name)
    return safe if len(safe) <= _MOST_LETTERS else f"{safe[: _MOST_LETTERS - 3]}..."
