"""Measurements to draw, with what a picture must stand, and what is to be read from a figure."""

import html
import inspect
import io
import math
import re

import matplotlib.image
import numpy as np

from keras_preact.analysis.results import (
    Backward,
    Forward,
    Initialisation,
    Lesions,
    Moments,
    PathLengths,
)


def names(count):
    return tuple(f"stage{stage}_unit{n}" for n, stage in enumerate(stages(count), 1))


def stages(count):
    return 1 + 3 * np.arange(count) // count


def values(count, broken=False, seed=0):
    """Values of 4 decades; a broken one holds what measurements of a diverged run hold."""
    drawn = 10 ** np.random.default_rng(seed).uniform(-4, 0, count)
    if broken:
        drawn[:5] = np.array([np.nan, np.inf, 0, -np.inf, 1e-45])[:count]
    return drawn


def moments(count, broken=False, seed=0):
    drawn = (values(count, broken, seed + n) for n in range(3))
    return Moments(*drawn)


def forward(count, broken=False):
    drawn = moments(count, broken)
    return Forward(
        names(count),
        stages(count),
        drawn.mean,
        drawn.variance,
        drawn.zero_fraction,
        *(moments(count, broken, seed) for seed in (3, 6, 9, 12)),
        *(values(count, broken, seed) for seed in (15, 16, 17, 18)),
    )


def backward(count, broken=False, plain=False):
    norms = [values(count, broken, seed) for seed in range(7)]
    if plain:
        norms[1] = norms[5] = norms[6] = np.zeros(count)
        norms[3] = np.full(count, np.nan)
    spread = tuple(values(100, broken, seed) for seed in range(count))
    last = 0.0 if broken else 0.25
    return Backward(names(count), stages(count), 2.3, last, *norms, spread)


def initialisation(label, depth, count, broken=False, seed=0):
    norms = [values(count, broken and draw % 3 == 1, seed + draw) for draw in range(6)]
    gradient, shortcut = np.stack(norms[:3]), np.stack(norms[3:])
    product = values(count, broken, seed + 6)
    return Initialisation(label, depth, names(count), gradient, shortcut, product)


def lesions(count, broken=False):
    accuracy = values(count)
    if broken:
        accuracy[:] = np.nan
    pairs = np.array([(0, count - 1), (0, 0)])[: 0 if broken else 2]
    return Lesions(names(count), 1000, 0.9, accuracy, pairs, values(len(pairs), seed=1))


def path_lengths(count, broken=False):
    paths = np.array([float(math.comb(count, length)) for length in range(count + 1)])
    share = values(count + 1, broken)
    share[-1] *= -1
    return PathLengths(names(count), paths, values(count + 1), share / share.sum())


def read(caption):
    """The text of a caption as a reader sees it, formulas without their layout, in ASCII."""
    text = html.unescape(re.sub("<[^>]*>", "", caption))
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{MULTIPLICATION SIGN}", "x")


def drawn(function, *args):
    """The figure before it becomes a PNG."""
    return inspect.unwrap(function)(*args)


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def decoded(png):
    """The pixels of a PNG file, float32 (height, width, 3)."""
    return matplotlib.image.imread(io.BytesIO(png))[..., :3]


def texts(figure):
    """The texts that are drawn, with their boxes in pixels."""
    figure.draw_without_rendering()
    found = [figure._suptitle, *(t for legend in figure.legends for t in legend.get_texts())]
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                # Others exist, but are not drawn.
                if low <= tick.get_loc() <= high:
                    found += [tick.label1, tick.label2]
    shown = [text for text in found if text.get_visible() and text.get_text()]
    return [(text.get_text(), text.get_window_extent()) for text in shown]


def overlapping(figure):
    """Pairs of texts that cover each other, and texts that leave the picture."""
    boxes = texts(figure)
    pairs = [
        (one, other)
        for n, (one, box) in enumerate(boxes)
        for other, second in boxes[:n]
        if box.x0 < second.x1 and second.x0 < box.x1 and box.y0 < second.y1 and second.y0 < box.y1
    ]
    whole = figure.bbox
    outside = [
        text
        for text, box in boxes
        if box.x0 < -1 or box.y0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]
    return pairs + outside
