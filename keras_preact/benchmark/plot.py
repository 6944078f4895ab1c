"""The throughputs of a benchmark as a picture."""

import textwrap
from collections.abc import Sequence

from keras_preact.benchmark.config import FRAMEWORKS, PRECISIONS
from keras_preact.benchmark.rows import Row
from keras_preact.support.plotting import BLUE, GREEN, ORANGE, PURPLE, as_png, figure

# The hatches serve print.
STYLES = {
    "keras_preact": {"facecolor": BLUE},
    "keras": {"facecolor": ORANGE, "hatch": "//"},
    "torch": {"facecolor": GREEN, "hatch": ".."},
    "torch_compile": {"facecolor": PURPLE, "hatch": "xx"},
}

# By which a picture is known again.
TITLE = "keras_preact benchmark"


def is_png(first: bytes) -> bool:
    """Whether a file that begins with these bytes was made by `png`."""
    return first.startswith(b"\x89PNG\r\n") and f"Title\0{TITLE}".encode() in first


@as_png(metadata={"Title": TITLE})
def png(rows: Sequence[Row], subtitle: str) -> bytes:
    """A panel for each model and mode, a bar for each precision and framework.

    The black lines go from the lowest to the highest round. What failed has no bar.

    Args:
        rows: at least one.
        subtitle: a line on the machine.
    """
    from matplotlib.patches import Patch

    models = list(dict.fromkeys(row.model for row in rows))
    modes = list(dict.fromkeys(row.mode for row in rows))
    frameworks = [name for name in FRAMEWORKS if name in {row.framework for row in rows}]
    precisions = [name for name in PRECISIONS if name in {row.precision for row in rows}]
    size = (2 + 4.5 * len(modes), 1.4 + 3.2 * len(models))
    picture = figure(figsize=size)
    picture.suptitle("\n".join(textwrap.wrap(subtitle, int(13 * size[0]))), fontsize="small")
    panels = picture.subplots(len(models), len(modes), squeeze=False)
    for model, line in zip(models, panels, strict=True):
        for mode, axes in zip(modes, line, strict=True):
            chosen = [row for row in rows if (row.model, row.mode) == (model, mode)]
            _panel(axes, chosen, frameworks, precisions)
    patches = [Patch(label=name, edgecolor="white", **STYLES[name]) for name in frameworks]
    picture.legend(handles=patches, loc="outside lower center", ncols=len(frameworks))
    return picture


def _panel(axes, rows, frameworks, precisions):
    width = 0.8 / len(frameworks)
    for row in rows:
        offset = (frameworks.index(row.framework) - (len(frameworks) - 1) / 2) * width
        place = precisions.index(row.precision) + offset
        speed = row.images_per_second
        if speed is None:
            axes.annotate(
                "failed",
                (place, 0),
                (0, 3),
                fontsize="small",
                textcoords="offset points",
                ha="center",
            )
            continue
        below = speed - row.lowest_images_per_second
        above = row.highest_images_per_second - speed
        style = {"edgecolor": "white", "capsize": 3, **STYLES[row.framework]}
        bar = axes.bar(place, speed, width, yerr=[[below], [above]], **style)
        axes.bar_label(bar, [_label(speed)], padding=2, fontsize="small")
    first = rows[0]
    axes.set_title(
        f"{first.model}, {first.mode}: batches of {first.batch_size}, "
        f"{first.image_pixels} x {first.image_pixels} pixels",
        fontsize="medium",
    )
    axes.set(xlabel="precision", ylabel="throughput (images / s)")
    axes.set_xticks(range(len(precisions)), precisions)
    axes.set_xlim(-0.5, len(precisions) - 0.5)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)


def _label(speed):
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}"
