"""The figures of mode scaling against the depth, as a picture."""

import textwrap
from collections.abc import Sequence

from keras_preact.benchmark.plot import STYLES, TITLE
from keras_preact.benchmark.scaling.run import ScalingRow
from keras_preact.support.plotting import PURPLE, SKY, VERMILION, as_png, figure, fit_log

_PANELS = {
    "start_seconds": ("build and first step", "seconds"),
    "build_seconds": ("build of network and optimizer", "seconds"),
    "layer_microseconds": ("a later step, for each layer", "microseconds"),
    "peak_memory_mebibytes": ("peak memory", "MiB"),
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


@as_png(metadata={"Title": TITLE})
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
    picture.suptitle("\n".join(textwrap.wrap(title, 140)), fontsize="small")
    on_gpu = any(row.device_memory_mebibytes is not None for row in rows)
    for axes, (name, (title, unit)) in zip(
        picture.subplots(2, 2).flat, _PANELS.items(), strict=True
    ):
        if on_gpu and name == "peak_memory_mebibytes":
            name, title = "device_memory_mebibytes", "peak memory on the GPU"
        _panel(axes, rows, name)
        axes.set(title=title, xlabel="layers", ylabel=unit, xscale="log")
        fit_log(axes, [value for row in rows if (value := getattr(row, name))])
        depths = sorted({row.depth for row in rows})
        # Upright, as neighbours such as 1001 and 1202 would overlap.
        axes.set_xticks(depths, map(str, depths), rotation=90)
        axes.set_xticks([], minor=True)
        axes.grid(alpha=0.3)
    handles, labels = _legend(rows)
    picture.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return picture


def _panel(axes, rows, name):
    groups = {}
    for row in rows:
        if getattr(row, name):
            groups.setdefault(_key(row), []).append(row)
    for group in groups.values():
        group = sorted(group, key=lambda row: row.depth)
        values = [getattr(row, name) for row in group]
        axes.plot([row.depth for row in group], values, **_style(group[0]))


def _key(row):
    return row.label, row.precision, row.block


def _style(row):
    # Hollow markers for what computes units twice: colours alone are hard to tell in print.
    return {
        "color": _COLORS[row.label],
        "linestyle": _LINES[row.precision],
        "marker": _MARKERS[row.block],
        "markerfacecolor": _COLORS[row.label] if row.remat == "none" else "white",
    }


def _legend(rows):
    from matplotlib.lines import Line2D

    first = {_key(row): row for row in reversed(rows)}
    labels = {key: f"{key[0]}, {key[1]}, {key[2]}" for key in sorted(first)}
    return [Line2D([], [], **_style(first[key])) for key in labels], list(labels.values())
