"""The figures of mode scaling against the depth, as a picture."""

import textwrap
from collections.abc import Sequence

from keras_preact.benchmark.job import label
from keras_preact.benchmark.plot import STYLES, TITLE
from keras_preact.benchmark.scaling.run import ScalingRow
from keras_preact.support.plotting import PURPLE, SKY, VERMILION, as_png, figure, fit_log, plain

# By the field of a row: title, unit, and how many of the field's unit make one.
_PANELS = {
    "start_seconds": ("build and first step", "seconds", 1),
    "build_seconds": ("build of network and optimizer", "seconds", 1),
    "layer_microseconds": ("a later step, for each layer", "milliseconds", 1000),
    "peak_memory_mebibytes": ("peak memory", "GiB", 1024),
}
# The frameworks' own are those of throughputs.
_COLORS = {
    **{name: style["facecolor"] for name, style in STYLES.items()},
    "keras_preact remat=auto": SKY,
    "keras_preact remat=unit": PURPLE,
    "torch remat=unit": VERMILION,
}
_LINES = {"float32": "-", "mixed_bfloat16": "--", "mixed_float16": ":"}
_MARKERS = {"basic": "s", "bottleneck": "o", "single": "^"}


@as_png(formulas=True, metadata={"Title": TITLE})
def png(rows: Sequence[ScalingRow], subtitle: str) -> bytes:
    """A panel for each figure, with a line for each framework, precision and block.

    Args:
        rows: at least one. What failed has no point.
        subtitle: a line on the machine.
    """
    picture = figure(figsize=(11, 8.4))
    first = rows[0]
    size = f"{first.image_pixels} x {first.image_pixels}"
    title = f"Training, batches of {first.batch_size} images of {size} pixels. {subtitle}"
    picture.suptitle("\n".join(textwrap.wrap(plain(title), 140)), fontsize="small")
    on_gpu = any(row.device_memory_mebibytes is not None for row in rows)
    panels = picture.subplots(2, 2).flat
    for axes, (name, (title, unit, size)) in zip(panels, _PANELS.items(), strict=True):
        if on_gpu and name == "peak_memory_mebibytes":
            name, title = "device_memory_mebibytes", "peak memory on the GPU"
        lines = _lines(rows, name)
        for key, line in lines.items():
            depths, values = zip(*line, strict=True)
            axes.plot(depths, [value / size for value in values], **_style(key))
        axes.set(title=title, xlabel="layers", ylabel=unit, xscale="log")
        fit_log(axes, [value / size for line in lines.values() for _, value in line])
        depths = sorted({row.depth for row in rows})
        # Upright, as neighbours such as 1001 and 1202 would overlap.
        axes.set_xticks(depths, map(str, depths), rotation=90)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    picture.legend(handles=_handles(rows), loc="outside lower center", ncols=4, fontsize="small")
    return picture


def _lines(rows, name):
    """By key, the depths and values of a line, from the shallowest."""
    lines = {}
    for row in sorted(rows, key=lambda row: row.depth):
        if value := getattr(row, name):
            lines.setdefault(_key(row), []).append((row.depth, value))
    return lines


def _key(row):
    return row.framework, row.remat, row.precision, row.block


def _style(key):
    framework, remat, precision, block = key
    color = _COLORS[label(framework, remat)]
    # Hollow markers for what computes units twice: colours alone are hard to tell in print.
    return {
        "color": color,
        "linestyle": _LINES[precision],
        "marker": _MARKERS[block],
        "markerfacecolor": color if remat == "none" else "white",
    }


def _handles(rows):
    from matplotlib.lines import Line2D

    several = len({row.precision for row in rows}) > 1
    handles = []
    for key in dict.fromkeys(map(_key, rows)):
        framework, remat, precision, block = key
        words = [label(framework, remat), *([precision] if several else []), block]
        handles.append(Line2D([], [], label=", ".join(words), **_style(key)))
    return handles
