"""Pictures as PNG files in memory, whatever the names in them are."""

import contextlib
import functools
import io
import warnings
from collections.abc import Callable, Iterator, Mapping


def figure(**options):
    """An empty matplotlib figure that touches neither a display nor pyplot's state.

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

    The function that returns the figure is its `__wrapped__`.

    Args:
        draw: the function.
        formulas: whether what stands between dollar signs is mathematics. Names of classes
            and files, which may hold any, must then be made plain.
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
    # At the default of all texts: those of ticks come to be while the figure is drawn.
    import matplotlib

    with matplotlib.rc_context({"text.parse_math": formulas}), warnings.catch_warnings():
        # A box stands in its place.
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)
        yield
