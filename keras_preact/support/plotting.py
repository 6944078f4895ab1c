"""Pictures as PNG files in memory: one matplotlib set-up, one palette, lines by residual unit."""

import contextlib
import functools
import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

# Okabe and Ito's palette, which the colour-blind can tell apart, without its yellow, which is
# too pale for lines on white.
COLORS = ("#56B4E9", "#D55E00", "#000000", "#009E73", "#CC79A7", "#0072B2", "#E69F00")
SKY, VERMILION, BLACK, GREEN, PURPLE, BLUE, ORANGE = COLORS
GREY = "#999999"
# The colour map of values, which grey print leaves readable.
HEAT = "cividis"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Some signals are equal (those before and after an identity). The later lines are thinner and
# dashed, which leaves the earlier ones visible; the markers serve grey print.
_LINES = (("-", 3.4, 8), ("--", 2.2, 6.5), ("-.", 1.6, 5), (":", 1.6, 4), ((0, (5, 1)), 1, 3))
STYLES = tuple(
    {"color": color, "marker": marker, "linestyle": line, "linewidth": width, "markersize": size}
    for color, marker, (line, width, size) in zip(COLORS, MARKERS, _LINES, strict=False)
)
UNIT_LABEL = "residual unit, first to last"

# Beyond, only some units have a marker.
_MOST_MARKERS = 20
# Beyond, lines are thinner.
_MANY_UNITS = 100
# Less is rounding beside the largest float32 numbers.
_MOST_DECADES = 30
_LETTERS_PER_INCH = 11


def figure(**options):
    """An empty matplotlib figure, without a display and without pyplot's state.

    Args:
        options: of matplotlib's `Figure`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(layout="constrained", **options)
    FigureCanvasAgg(empty)
    return empty


def as_png(
    draw: Callable[..., object] | None = None,
    *,
    formulas: bool = False,
    dpi: int = 120,
    metadata: Mapping[str, str] | None = None,
) -> Callable[..., bytes]:
    """Makes a function that draws a matplotlib figure return it as a PNG file.

    The wrapped function is its `__wrapped__`.

    Args:
        draw: returns the figure.
        formulas: whether text between dollar signs is mathematics. Names of classes and files,
            which may hold any, then go through `plain`.
        dpi: pixels an inch.
        metadata: texts by the keywords of PNG, such as "Title".
    """
    if draw is None:
        return functools.partial(as_png, formulas=formulas, dpi=dpi, metadata=metadata)

    @functools.wraps(draw)
    def png(*args, **kwargs) -> bytes:
        image = io.BytesIO()
        with _texts(formulas):
            draw(*args, **kwargs).savefig(image, format="png", dpi=dpi, metadata=metadata)
        return image.getvalue()

    return png


@contextlib.contextmanager
def _texts(formulas: bool) -> Iterator[None]:
    # The default of all texts, as ticks get theirs while the figure is drawn.
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": formulas}), warnings.catch_warnings():
        # A missing glyph is drawn as a box.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield


def titled_figure(title: str, width_inches: float, height_inches: float):
    """An empty matplotlib figure under a wrapped title."""
    lines = textwrap.wrap(title, int(_LETTERS_PER_INCH * width_inches))
    height = height_inches + 0.2 * len(lines)
    empty = figure(figsize=(width_inches, height))
    # Dollar signs in a title start no formula.
    empty.suptitle("\n".join(lines), parse_math=False)
    return empty


def plain(text: str) -> str:
    """Escapes dollar signs, so that they start no formula in a legend or a caption."""
    return text.replace("$", r"\$")


def lines(axes, series: Mapping[str, np.ndarray], *, log: bool = False) -> None:
    """Draws a line for each series (units,) against the number of the unit, from 1.

    Values that are not finite are left out, as are those not above 0 on a log scale; the
    legend counts them.
    """
    for place, (label, values) in enumerate(series.items()):
        shown, remark = _drawable(values, log)
        numbers = np.arange(1, len(shown) + 1)
        style = {"markevery": marked(shown, place), **STYLES[place]}
        if len(shown) > _MANY_UNITS:
            style["linewidth"] *= 0.6
        axes.plot(numbers, shown, label=label + remark, **style)
    if log:
        fit_log(axes, np.concatenate([np.ravel(values) for values in series.values()]))
    axes.grid(alpha=0.3)


def style(place: int) -> dict[str, str]:
    """The colour and the marker of the network or run at a place, from 0, in all its lines.

    The pair is another one at each of 49 places.
    """
    marker = (place + place // len(COLORS)) % len(MARKERS)
    return {"color": COLORS[place % len(COLORS)], "marker": MARKERS[marker]}


def positive(values: np.ndarray) -> np.ndarray:
    """The values with NaN in place of those that a log scale cannot show."""
    values = np.asarray(values, "float64")
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _drawable(values, log):
    """The values with NaN in place of those the axis cannot show, and a remark on these."""
    values = np.asarray(values, "float64")
    missing = {"not finite": ~np.isfinite(values)}
    if log:
        missing |= {"0": values == 0, "below 0": np.isfinite(values) & (values < 0)}
    remarks = []
    for words, places in missing.items():
        if places.all():
            remarks.append(words)
        elif places.any():
            units = "unit" if places.sum() == 1 else "units"
            remarks.append(f"{words} in {places.sum()} {units}")
    remark = f" ({', '.join(remarks)})" if remarks else ""
    return np.where(np.any(list(missing.values()), axis=0), np.nan, values), remark


def marked(values: np.ndarray, place: int) -> list[int]:
    """The indices that have a marker: a few, staggered by the place of the line, and values
    without a neighbour, which no line would show."""
    apart = -(-len(values) // _MOST_MARKERS)
    there = np.pad(np.isfinite(values), 1)
    alone = there[1:-1] & ~there[:-2] & ~there[2:]
    regular = np.arange(len(values)) % apart == place % len(STYLES) * apart // len(STYLES)
    return np.flatnonzero(regular | alone).tolist()


def fit_log(axes, values: np.ndarray, most_decades: float = _MOST_DECADES) -> None:
    """Makes the y axis logarithmic and fits it to all values that it can show.

    It spans at least a decade, so that rounding does not look like a slope, and at most
    `most_decades` below the highest value.
    """
    from matplotlib.ticker import FuncFormatter

    axes.set_yscale("log")
    values = np.asarray(values, "float64")
    exponents = np.log10(values[np.isfinite(values) & (values > 0)])
    if not exponents.size:
        axes.set_ylim(0.1, 10)
        note(axes, "nothing above 0")
        return
    low, high = np.clip([exponents.min(), exponents.max()], -300, 300)
    low = max(low, high - most_decades)
    spare = max(min(0.05 * (high - low), 0.5), (1 - (high - low)) / 2)
    axes.set_ylim(10 ** (low - spare), 10 ** (high + spare))
    if high - low < 3 and low > -3 and high < 4:
        # 0.02 is easier to read than 2 x 10^-2.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(_two_or_five))


def _two_or_five(value, _):
    text = f"{value:g}"
    return text if text.strip("0.") in ("2", "5") else ""


def note(axes, text: str) -> None:
    """Writes the reason for an empty panel into its middle."""
    place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
    axes.text(0.5, 0.5, text, color="0.35", bbox={"color": "white"}, **place)


def unit_axis(axes, count: int, stages: np.ndarray | None = None, names: bool = True) -> None:
    """Sets the x axis to residual units 1 to `count`, with thin lines between the stages.

    Args:
        axes: of matplotlib.
        count: of units.
        stages: int (units,), the stage of each; no lines without.
        names: whether the stages' names stand above.
    """
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, count + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if stages is None:
        return
    starts = np.flatnonzero(np.diff(stages, prepend=-1))
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        if start:
            axes.axvline(start + 0.5, color="0.5", linewidth=0.8, zorder=0)
        if names:
            # A narrow stage has room only for its number.
            name = f"stage {stages[start]}" if end - start > 0.1 * count else f"{stages[start]}"
            axes.annotate(
                name,
                ((start + end + 1) / 2, 1),
                (0, 3),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                ha="center",
                fontsize="small",
                color="0.35",
            )


def legend(figure, handles: Sequence) -> None:
    """A legend of labelled artists below all panels, in as many columns as fit."""
    longest = max(len(handle.get_label().replace(r"\mathcal", "")) for handle in handles)
    columns = int(figure.get_figwidth() * _LETTERS_PER_INCH / (longest + 8))
    columns = min(max(columns, 1), len(handles))
    # The rows evenly filled.
    columns = -(-len(handles) // -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, handlelength=4)
