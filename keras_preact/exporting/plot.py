"""The report as a picture."""

from collections.abc import Sequence

from keras_preact.exporting.checks.parity import THROUGHPUT_BATCH
from keras_preact.exporting.report import Artifact
from keras_preact.support.plotting import BLUE, GREY, as_png, figure
from keras_preact.support.text import printable


@as_png
def png(artifacts: Sequence[Artifact], title: str) -> bytes:
    """A bar chart of size, accuracy, latency and throughput, a bar for each artifact.

    Args:
        artifacts: the Keras model's first, whose bars are grey.
        title: a line above the picture.
    """
    panels = (
        ("size (MB)", "{:,.2f}", lambda a: None if a.path is None else a.size_bytes / 1e6),
        ("top-1 accuracy (%)", "{:.2f}", lambda a: 100 * a.agreement.accuracy),
        ("latency, 1 image (ms)", "{:,.2f}", lambda a: a.speed.latency_milliseconds),
        (
            f"throughput, {THROUGHPUT_BATCH} images (images/s)",
            "{:,.0f}",
            lambda a: a.speed.throughput_images_per_second,
        ),
    )
    picture = figure(figsize=(13, 1.2 + 0.35 * len(artifacts)))
    picture.suptitle(printable(title))
    names = [artifact.name for artifact in artifacts]
    colors = [GREY if a.path is None else BLUE for a in artifacts]
    for axes, (label, form, value) in zip(
        picture.subplots(1, len(panels), sharey=True), panels, strict=True
    ):
        values = [value(artifact) for artifact in artifacts]
        bars = axes.barh(names, [v or 0 for v in values], color=colors)
        texts = ["" if v is None else form.format(v) for v in values]
        axes.bar_label(bars, texts, padding=3, fontsize="small")
        axes.margins(x=0.3)
        axes.set_xlabel(label)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(left=False)
    axes.invert_yaxis()
    return picture
